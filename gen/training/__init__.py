"""Training recipes, one file each, over one loop.

loop.py           resumable steps, EMA, precision, progress
dataset.py        a manifest's images in memory at one size
autoencoder.py    KL autoencoder
text_to_image.py  latent diffusion from captions
ssl_encoder.py    image encoder without labels
finding_classifier.py  judge of findings, view, sex and age group
caption_tokenizer.py  CLIP-format tokenizer learnt from captions
pictures.py       grids to look at
"""
