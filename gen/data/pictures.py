"""PNG and JPEG: opened by their own readers only, checked, then decoded to grey."""

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from gen.data.limits import Limits, boundary
from gen.errors import UnsafeFile

Kind = Literal["PNG", "JPEG", "DICOM"]

# A progressive JPEG repeats work over the whole picture in each scan; encoders write about ten.
MAX_JPEG_SCANS = 64


def kind_of(name: str, data: bytes) -> Kind:
    """Tell the format from the first bytes, never from the file's name."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[128:132] == b"DICM":
        return "DICOM"
    start = f"starts with {data[:4]!r}" if data else "is empty"
    raise UnsafeFile(f"{name} {start}, but only PNG, JPEG and DICOM are read; convert it to PNG")


def open_picture(name: str, data: bytes, limits: Limits) -> PngImageFile | JpegImageFile:
    """Read the header of a PNG or JPEG and check it; nothing is decoded yet.

    The plugins are called directly: `Image.open` would hand a JPEG to the MPO reader.
    """
    picture: PngImageFile | JpegImageFile
    with boundary(name):
        if kind_of(name, data) == "PNG":
            picture = PngImageFile(BytesIO(data))
        else:
            _check_scans(name, data)
            picture = JpegImageFile(BytesIO(data))
    limits.check_shape(name, *picture.size, frames=getattr(picture, "n_frames", 1))
    return picture


def picture_pixels(name: str, data: bytes, limits: Limits) -> tuple[NDArray[np.float32], int]:
    """Decode to (pixels (H, W) in [0, 1], bits); colour becomes luma (ITU-R 601-2)."""
    picture = open_picture(name, data, limits)
    with boundary(name):
        if picture.mode.startswith("I"):  # convert("L") would saturate 16-bit grey
            return np.asarray(picture, dtype=np.float32) / np.float32(65535), 16
        picture.load()
        picture.info.pop("transparency", None)
        return np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255), 8


def colour_pixels(name: str, data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode to RGB (H, W, 3) of 8 bits; grey is repeated, transparency is dropped."""
    picture = open_picture(name, data, limits)
    if picture.mode.startswith("I"):
        raise UnsafeFile(f"{name} has 16 bits a pixel, but colour is read with 8; save it as RGB")
    with boundary(name):
        picture.load()
        picture.info.pop("transparency", None)
        return np.asarray(picture.convert("RGB"))


def _check_scans(name: str, data: bytes) -> None:
    scans = data.count(b"\xff\xda")
    if scans > MAX_JPEG_SCANS:
        raise UnsafeFile(
            f"{name} declares {scans} scans, but a JPEG may have {MAX_JPEG_SCANS}; save it as a "
            "baseline JPEG or PNG"
        )
