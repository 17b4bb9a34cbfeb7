"""One diffusers pipeline a task.

outputs.py        what pipelines return
text_to_cxr.py    chest X-rays from a sentence
augmentation.py   training pictures from training pictures, with their masks
anomaly.py        where a picture departs from healthy anatomy
over_text_to_image.py  what these two share of a model
pictures.py       grey pictures into latents, painted there, and back
redrawing.py      one picture varied, painted in part, or drawn from words
large_image.py    tissue of any size from embeddings
large_fields.py   what such an image shall show, from pictures that are varied, or from words
large_pixels.py   what is kept of a real image goes in, finished pixels come out
large_guidance.py the network of its windows, guided and led to the rare
large_rarity.py   how rare what was drawn became
tile_variation.py a tile of tissue drawn anew from its own embeddings
large_previews.py what it will roughly be, while it forms
large_presets.py  settings of published systems for it
"""

from pipelines.augmentation import AugmentationPipeline
from pipelines.large_image import LargeImagePipeline
from pipelines.outputs import Augmented, ChestXrays, LargeImages
from pipelines.text_to_cxr import TextToCXRPipeline

__all__ = [
    "AugmentationPipeline",
    "Augmented",
    "ChestXrays",
    "LargeImagePipeline",
    "LargeImages",
    "TextToCXRPipeline",
]
