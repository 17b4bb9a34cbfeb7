"""A tile of tissue drawn anew from what a self-supervised encoder sees in it.

Its embeddings are the condition, so no label is needed, and what it shows stays (Graikos et al.
2024, arXiv 2312.07330, section 3.2).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from gen.reference_field import reader
from gen.types import Process
from pipelines.large_image import (
    GUIDANCE_SCALE,
    MICRONS_PER_PIXEL,
    NUM_INFERENCE_STEPS,
    LargeImagePipeline,
)


def tile_variation(
    pipeline: LargeImagePipeline,
    tile: NDArray[np.uint8],
    seed: int,
    *,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    microns_per_pixel: float = MICRONS_PER_PIXEL,
) -> Process[NDArray[np.uint8]]:
    """The whole tile (H, W, 3), RGB, drawn anew from the field of its own embeddings.

    Args:
        pipeline: whose networks answer.
        tile: (H, W, 3), RGB.
        seed: of the variation.
        num_inference_steps, guidance_scale, microns_per_pixel: see `LargeImagePipeline`.
    """
    height, width = tile.shape[:2]
    field = yield from pipeline.field_like(reader(tile), height, width)
    bands: list[NDArray[np.uint8]] = []
    yield from pipeline.process(
        field,
        bands.append,
        method="shift",
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        microns_per_pixel=microns_per_pixel,
        generator=torch.Generator().manual_seed(seed),
    )
    return np.concatenate(bands)
