"""Pixels of a large image: what is kept of a real one goes in as latents, and bands come out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.canvas import Canvas
from gen.known_region import Keep, KnownRegion, keep_known
from gen.large_canvas import decode_canvas
from gen.tiling import overlapping
from gen.types import Process

if TYPE_CHECKING:
    from pipelines.large_image import LargeImagePipeline

Write = Callable[[NDArray[np.uint8]], None]
"""A band of finished pixels (h, W, 3), from the top down."""

# patches a side of what is decoded at once, and shared with the next: a decoder that invents detail
# does so alike on both sides of a border only well inside
DECODED, DECODED_TWICE = 3.0, 0.5


def keep_region(
    pipeline: "LargeImagePipeline", known: KnownRegion, scheduler: Any, generator: torch.Generator
) -> Process[Keep]:
    """What puts the known part of an image back after each step."""
    vae, factor = pipeline.vae, pipeline.vae_scale_factor
    like = torch.empty(0, device=vae.device, dtype=vae.dtype)
    side = int(pipeline.unet.config.sample_size)
    latents = yield from known.encode(factor, side, like, vae.config.scaling_factor)
    place, mask = known.cells(factor), known.cell_mask(factor)
    return keep_known(latents, place, mask, scheduler, generator)


def write_pixels(
    pipeline: "LargeImagePipeline",
    canvas: Canvas,
    height: int,
    width: int,
    write: Write,
    known: KnownRegion | None = None,
) -> Process[None]:
    """Pixels of clean latents, band by band, of at most height x width."""
    side, factor = int(pipeline.unet.config.sample_size), pipeline.vae_scale_factor
    window = min(round(DECODED * side), canvas.height, canvas.width)
    shared = min(round(DECODED_TWICE * side), window - 1)
    layout = overlapping(canvas.height, canvas.width, window, window - shared)
    weights = None if known is None else known.weights(height, width, factor)

    def emit(top: int, rows: Tensor) -> None:
        visible = rows[:, : max(0, height - top), :width]
        if visible.shape[1]:
            levels = ((visible.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            pixels = levels.expand(3, -1, -1).movedim(0, -1).contiguous().numpy()
            if known is not None and weights is not None:
                pixels = known.paste(top, pixels, weights)
            write(pixels)

    vae = pipeline.vae
    decode = pipeline.decode_patches
    yield from decode_canvas(canvas, decode, layout, shared, factor, emit, vae.device, vae.dtype)
