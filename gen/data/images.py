"""Pictures in and out: PNG, JPEG and DICOM to one grey record, and PNG back."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.atomic import atomic_file
from gen.data.dicom import dicom_image
from gen.data.dicom_header import parse_dicom
from gen.data.limits import Limits, Source, boundary, read_bytes
from gen.data.medical_image import MedicalImage, to_integers
from gen.data.pictures import colour_pixels, kind_of, open_picture, picture_pixels
from gen.data.provenance import Record

__all__ = [
    "Limits",
    "MedicalImage",
    "read_colour",
    "read_image",
    "stored_size",
    "to_integers",
    "write_png",
]


def read_image(source: Source, limits: Limits | None = None) -> MedicalImage:
    """Read a PNG, JPEG or DICOM file of 8 or 16 bits; the content tells the format.

    Args:
        source: path, or the bytes of a file. Never a URL.
        limits: what the file may cost; None means the defaults of `Limits`.

    Raises:
        UnsafeFile: the file is too large, of another format, damaged, or constant.
        InvalidInput: the file cannot be opened.
    """
    limits = limits or Limits()
    name, data = read_bytes(source, limits)
    if kind_of(name, data) == "DICOM":
        return dicom_image(name, data, limits)
    pixels, bits = picture_pixels(name, data, limits)
    return MedicalImage(pixels, bits, spacing_mm=None, modality=None, source=name)


def read_colour(source: Source, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Read a PNG or JPEG file of 8 bits as RGB (H, W, 3).

    Raises:
        UnsafeFile: the file is too large, of another format, or damaged.
        InvalidInput: the file cannot be opened.
    """
    limits = limits or Limits()
    name, data = read_bytes(source, limits)
    return colour_pixels(name, data, limits)


def stored_size(source: Source, limits: Limits | None = None) -> tuple[int, int]:
    """(height, width) that a file's header declares; no pixel is decoded.

    Raises:
        UnsafeFile: the file is too large, of another format, or damaged.
        InvalidInput: the file cannot be opened.
    """
    limits = limits or Limits()
    name, data = read_bytes(source, limits)
    if kind_of(name, data) == "DICOM":
        header = parse_dicom(name, data)
        with boundary(name):
            return int(header.Rows), int(header.Columns)
    width, height = open_picture(name, data, limits).size
    return height, width


def write_png(
    path: str | Path,
    pixels: NDArray[np.floating],
    record: Record,
    *,
    bits: int = 8,
    overwrite: bool = False,
) -> None:
    """Write pixels (H, W) in [0, 1] as a grey PNG of 8 or 16 bits that carries its record."""
    with atomic_file(path, overwrite=overwrite) as stream:
        encode_png(stream, pixels, record, bits=bits)


def encode_png(
    stream: BinaryIO, pixels: NDArray[np.floating], record: Record, *, bits: int = 8
) -> None:
    """Write into an open stream what `write_png` writes into a file."""
    picture = Image.fromarray(to_integers(pixels, bits))
    picture.save(stream, format="PNG", pnginfo=record.to_png_info())
