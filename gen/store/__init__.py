"""The model store: from an id to components that are safe to run.

Reading order:

card.py         what a model is, what it was trained on, the hash of every file
catalogue.py    an id -> a folder or a file: embedded, local, or in the Hugging Face cache
weight_files.py safetensors files of a component, and their headers
guard.py        everything that is refused before a weight is read
timm_folder.py  vision transformers of the timm library
single_file.py  Stable Diffusion 1.x and 2.x checkpoints of one file, read offline
adapters.py     LoRA adapters
loading.py      `load_components`: the one way in; only this and the three above import torch
"""
