"""A finished image in another file format, with the record it came with."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from gen.data.dicom import encode_dicom
from gen.data.images import encode_png, read_image
from gen.data.limits import boundary
from gen.data.previews import preview_png, small_png
from gen.data.provenance import Record
from gen.data.stored_tiles import TIFF_STARTS
from gen.errors import InvalidInput, UnsafeFile

SLIDE_PREVIEW_SIDE = 512  # of a slide, whose layout is to be seen
_MAX_PREVIEW_PIXELS = 2**24


def to_png(data: bytes, record: Record) -> bytes:
    """An 8-bit PNG of a PNG or DICOM file. Raises InvalidInput for a slide."""
    _refuse_slide(data)
    stream = io.BytesIO()
    encode_png(stream, read_image(data).pixels, record)
    return stream.getvalue()


def to_dicom(data: bytes, record: Record) -> bytes:
    """A DX object of a PNG or DICOM file; the same record gives the same UIDs.

    Raises InvalidInput for a slide.
    """
    _refuse_slide(data)
    stream = io.BytesIO()
    encode_dicom(stream, read_image(data).pixels, record)
    return stream.getvalue()


def to_thumbnail(data: bytes, record: Record) -> bytes:
    """A small PNG, for lists; of a slide in colour, from a small level of its pyramid."""
    del record  # of the image, not of its thumbnail
    if data.startswith(TIFF_STARTS):
        return small_png(_slide_level(data), SLIDE_PREVIEW_SIDE)
    return preview_png(read_image(data).pixels)


def colour_preview(pixels: NDArray[np.floating], side: int = SLIDE_PREVIEW_SIDE) -> bytes:
    """A PNG, at most `side` pixels a side, of pixels (H, W, 3) in [0, 1]."""
    return small_png(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), side)


def map_thumbnail(overlay: bytes) -> bytes:
    """A small PNG of a map over its picture."""
    with boundary("the overlay"):
        picture = PngImageFile(io.BytesIO(overlay)).convert("RGB")
    picture.thumbnail((SLIDE_PREVIEW_SIDE, SLIDE_PREVIEW_SIDE), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _slide_level(data: bytes) -> Image.Image:
    """The smallest level of a pyramid that is no smaller than a preview, RGB."""
    with boundary("the slide"):
        tiff = TiffImageFile(io.BytesIO(data))
        for number in range(tiff.n_frames):
            tiff.seek(number)
            if max(tiff.size) < SLIDE_PREVIEW_SIDE and number:
                tiff.seek(number - 1)
                break
        if tiff.size[0] * tiff.size[1] > _MAX_PREVIEW_PIXELS:
            raise UnsafeFile(
                f"the slide's smallest level has {tiff.size[0]} x {tiff.size[1]} pixels, which is"
                " too much to be made smaller; write it with more levels"
            )
        return tiff.convert("RGB")


def _refuse_slide(data: bytes) -> None:
    if data.startswith(TIFF_STARTS):
        raise InvalidInput(
            "format is that of one picture, but the result is a slide of many tiles; take the file"
            " as it is, format=preview, or its tiles"
        )
