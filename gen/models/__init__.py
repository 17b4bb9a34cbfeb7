"""Embedded architectures that diffusers and transformers lack; kept flat, a class's module path
is part of the checkpoint format.

block_autoencoder.py  principal components of blocks, with a learned refinement
cxr_encoder.py        features of radiographs or tissue, learnt without labels
ssl_projection.py     embeddings and magnification to what a U-Net attends to
cxr_classifier.py     findings, view, sex and age group of radiographs
"""
