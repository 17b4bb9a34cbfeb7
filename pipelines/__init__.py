"""One diffusers pipeline a task.

outputs.py      what pipelines return
text_to_cxr.py  chest X-rays from a sentence
"""

from pipelines.outputs import ChestXrays
from pipelines.text_to_cxr import TextToCXRPipeline

__all__ = ["ChestXrays", "TextToCXRPipeline"]
