"""Training recipes, one file each, over one loop.

loop.py           resumable steps, EMA, precision, progress
dataset.py        a manifest's radiographs in memory at one size
tissue.py         tiles of stained tissue at several magnifications
diffusion.py, unet.py, text_encoder.py, captioned.py  what the diffusion recipes share
masks.py          what an inpainting model learns to paint
autoencoder.py    pixels to latents and back
text_to_image.py  latent diffusion from captions
inpainting.py     text-to-image that is shown what it paints around
ssl_encoder.py    image encoder without labels
ssl_conditioned.py  latent diffusion of patches from an encoder's embeddings
embedding_prior.py  diffusion of grids of embeddings from text
finding_classifier.py  judge of findings, view, sex and age group
caption_tokenizer.py  CLIP-format tokenizer learnt from captions
pictures.py       grids to look at
"""
