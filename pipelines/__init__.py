"""One diffusers pipeline a task.

outputs.py        what pipelines return
text_to_cxr.py    chest X-rays from a sentence
large_image.py    tissue of any size from embeddings
large_fields.py   what such an image shall show, from pictures that are varied, or from words
large_pixels.py   what is kept of a real image goes in, finished pixels come out
large_guidance.py the network of its windows, guided and led to the rare
large_rarity.py   how rare what was drawn became
large_previews.py what it will roughly be, while it forms
large_presets.py  settings of published systems for it
"""

from pipelines.large_image import LargeImagePipeline
from pipelines.outputs import ChestXrays, LargeImages
from pipelines.text_to_cxr import TextToCXRPipeline

__all__ = ["ChestXrays", "LargeImagePipeline", "LargeImages", "TextToCXRPipeline"]
