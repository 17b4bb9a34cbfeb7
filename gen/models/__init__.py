"""Embedded architectures that diffusers and transformers lack; kept flat, a class's module path
is part of the checkpoint format.

block_autoencoder.py  principal components of blocks, with a learned refinement
cxr_encoder.py        features of radiographs, learnt without labels
cxr_classifier.py     findings, view, sex and age group of radiographs
"""
