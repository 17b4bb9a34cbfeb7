"""Training recipes, one file each, over one loop.

loop.py           resumable steps, EMA, precision, progress
dataset.py        a manifest's images in memory at one size
autoencoder.py    KL autoencoder
text_to_image.py  latent diffusion from captions
caption_tokenizer.py  CLIP-format tokenizer learnt from captions
pictures.py       grids to look at
"""
