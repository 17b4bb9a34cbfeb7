"""DICOM pictures (CR, DX, SC and alike): read within limits, written as synthetic objects."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.filewriter import dcmwrite
from pydicom.pixels import pixel_array

from gen.data.atomic import atomic_file
from gen.data.dicom_elements import number
from gen.data.dicom_functional_groups import PER_FRAME, SHARED, FunctionalGroups
from gen.data.dicom_grey import grey, modality, pixel_spacing
from gen.data.dicom_header import parse_dicom, quiet
from gen.data.dicom_object import SopClass, build_dicom
from gen.data.dicom_pixels import check_pixels
from gen.data.limits import STACK_LIMITS, Limits, Source, boundary, read_bytes
from gen.data.medical_image import ImageStack, MedicalImage
from gen.data.provenance import Record


def read_dicom(source: Source, limits: Limits | None = None) -> MedicalImage:
    """Read a DICOM file as it is meant to be looked at; of several frames, the first.

    Rescale, then lookup table or window, then MONOCHROME1 inverted. Without a window, unsigned
    pixels span all of their stored bits, and signed ones the values that occur.
    """
    limits = limits or Limits()
    name, data = read_bytes(source, limits)
    return dicom_image(name, data, limits)


def read_frames(source: Source, limits: Limits = STACK_LIMITS) -> ImageStack:
    """Read all frames of a DICOM file, each as `read_dicom` would.

    What an enhanced object says of a frame (rescale, window) comes before what it says of all.
    Signed pixels without a window span the values that occur in any frame.

    Raises:
        UnsafeFile: the file is too large, damaged, constant, or a frame is compressed in parts.
        InvalidInput: the file cannot be opened.
    """
    name, data = read_bytes(source, limits)
    dataset = parse_dicom(name, data, also=(SHARED, PER_FRAME), max_frames=limits.max_frames)
    with boundary(name), quiet():
        check_pixels(name, dataset, limits)
        num_frames = number(name, dataset, "NumberOfFrames", default=1)
        groups = FunctionalGroups(name, dataset, num_frames)
        shape = (num_frames, int(dataset.Rows), int(dataset.Columns))
        stored = pixel_array(dataset).reshape(*shape, *(3,) * (dataset.SamplesPerPixel == 3))
        occurring = int(stored.min()), int(stored.max())
        pixels = np.empty(shape, np.float32)
        for index in range(num_frames):
            pixels[index] = grey(name, groups.elements(index), stored[index], occurring)
        return ImageStack(
            pixels=pixels,
            bits=int(dataset.BitsStored),
            spacing_mm=pixel_spacing(name, groups.elements(0)),
            modality=modality(dataset),
            source=name,
        )


def write_dicom(
    path: str | Path,
    pixels: NDArray[np.floating],
    record: Record,
    *,
    sop_class: SopClass = "DX",
    bits: int = 16,
    spacing_mm: tuple[float, float] | None = None,
    view: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write pixels (H, W) in [0, 1] as a DICOM object that says throughout that it is synthetic.

    Args:
        path: appears whole or not at all.
        pixels: bright where X-rays are absorbed (MONOCHROME2).
        record: kept in a private block; decides every UID, so writing again gives equal bytes.
        sop_class: "DX" for training, or "SC" (Secondary Capture) for viewing and other modalities.
        bits: 8 or 16.
        spacing_mm: (rows, columns); None means unknown, see `build_dicom`.
        view: "AP", "PA", "LL", "RL" or None.
        overwrite: replace an existing file.
    """
    with atomic_file(path, overwrite=overwrite) as stream:
        encode_dicom(
            stream, pixels, record, sop_class=sop_class, bits=bits, spacing_mm=spacing_mm, view=view
        )


def encode_dicom(
    stream: BinaryIO, pixels: NDArray[np.floating], record: Record, **kinds: Any
) -> None:
    """Write into an open stream what `write_dicom` writes; `kinds` as `build_dicom` takes them."""
    dcmwrite(stream, build_dicom(pixels, record, **kinds), enforce_file_format=True)


def dicom_image(name: str, data: bytes, limits: Limits) -> MedicalImage:
    """Read the bytes of a DICOM file; `name` is for messages."""
    dataset = parse_dicom(name, data)
    with boundary(name), quiet():
        check_pixels(name, dataset, limits)
        stored = pixel_array(dataset, index=0)
        return MedicalImage(
            pixels=grey(name, dataset, stored),
            bits=int(dataset.BitsStored),
            spacing_mm=pixel_spacing(name, dataset),
            modality=modality(dataset),
            source=name,
        )
