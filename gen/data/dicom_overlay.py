"""Colour pictures drawn over a source image, as DICOM secondary captures in its study."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gen.data.atomic import atomic_file
from gen.data.dicom_derived import copy_elements, derive, encode, source_image
from gen.data.dicom_header import quiet
from gen.data.dicom_source import SourceFrame, source_frames
from gen.data.provenance import Record
from gen.errors import InvalidInput


def write_overlay(
    path: str | Path,
    colours: NDArray[np.uint8],
    source: Dataset,
    record: Record,
    *,
    frame: int = 0,
    overwrite: bool = False,
) -> None:
    """Write an overlay as a DICOM secondary capture; `path` appears whole or not at all.

    Arguments as of `build_overlay`.
    """
    dataset = build_overlay(colours, source, record, frame=frame)
    with atomic_file(path, overwrite=overwrite) as stream:
        encode(stream, dataset)


def build_overlay(
    colours: NDArray[np.uint8], source: Dataset, record: Record, *, frame: int = 0
) -> Dataset:
    """Build a colour secondary capture; the same arguments give the same bytes.

    Args:
        colours: (H, W, 3) uint8, RGB; pixel (r, c) is that of the source.
        source: the object that was drawn over, such as `read_source` gives.
        record: how the overlay was made.
        frame: of the source, from 0.

    Raises InvalidInput if the picture does not fit the source, or the source lacks identity.
    """
    frames = source_frames([source])
    if not 0 <= frame < len(frames):
        raise InvalidInput(f"frame is {frame}, but the source has frames 0 to {len(frames) - 1}")
    drawn = frames[frame]
    needed = (source.get("Rows"), source.get("Columns"), 3)
    if colours.shape != needed or colours.dtype != np.uint8:
        raise InvalidInput(
            f"colours has the shape {colours.shape} of {colours.dtype}, but {needed} of uint8 is "
            "needed; draw over the source's own pixels"
        )
    with quiet():
        return _build(colours, drawn, record)


def _build(colours: NDArray[np.uint8], drawn: SourceFrame, record: Record) -> Dataset:
    content = colours.tobytes() + b"\0" * (colours.size % 2)
    dataset = derive([drawn], record, uid.SecondaryCaptureImageStorage, "Anomaly overlay", content)
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    # nobody looked for text in the pixels, so unless the source says NO it may be there
    dataset.BurnedInAnnotation = drawn.instance.get("BurnedInAnnotation") or "YES"
    dataset.PatientOrientation = dataset.Laterality = ""
    copy_elements(dataset, drawn.elements, ("PatientOrientation", "PixelSpacing"))
    dataset.SourceImageSequence = Sequence([source_image(drawn)])
    dataset.Rows, dataset.Columns = colours.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = content
    dataset["PixelData"].VR = "OB"
    return dataset
