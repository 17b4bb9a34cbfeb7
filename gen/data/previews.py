"""Small pictures: of unfinished images, to watch them form, and of finished ones for lists."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gen.data.medical_image import to_integers

LONGEST_SIDE = 128


def preview_png(pixels: NDArray[np.floating]) -> bytes:
    """A PNG, at most `LONGEST_SIDE` pixels a side, of pixels (H, W) in [0, 1]."""
    return small_png(Image.fromarray(to_integers(pixels, 8)), LONGEST_SIDE)


def small_png(picture: Image.Image, side: int) -> bytes:
    """A PNG, at most `side` pixels a side, marked as synthetic; the picture itself is shrunk."""
    picture.thumbnail((side, side), Image.Resampling.BOX)
    info = PngInfo()
    info.add_text("Synthetic", "YES")
    stream = io.BytesIO()
    picture.save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()
