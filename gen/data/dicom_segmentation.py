"""Masks and maps as DICOM segmentations of the images that they were made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from gen.data.atomic import atomic_file
from gen.data.dicom_derived import copy_elements, derive, encode, source_image
from gen.data.dicom_elements import coded, has, shorten
from gen.data.dicom_header import quiet
from gen.data.dicom_source import SourceFrame, source_frames
from gen.data.provenance import Record, dicom_uid
from gen.errors import InvalidInput

Mask = NDArray[Any]

_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_PLACE = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def write_segmentation(
    path: str | Path,
    mask: Mask,
    sources: Sequence[Dataset],
    record: Record,
    *,
    label: str = "Departure from healthy anatomy",
    overwrite: bool = False,
) -> None:
    """Write a mask as a DICOM segmentation; `path` appears whole or not at all.

    Arguments as of `build_segmentation`.
    """
    dataset = build_segmentation(mask, sources, record, label=label)
    with atomic_file(path, overwrite=overwrite) as stream:
        encode(stream, dataset)


def build_segmentation(
    mask: Mask,
    sources: Sequence[Dataset],
    record: Record,
    *,
    label: str = "Departure from healthy anatomy",
) -> Dataset:
    """Build a segmentation of one segment; the same arguments give the same bytes.

    Args:
        mask: (H, W), or (F, H, W) with a plane for each frame of the sources in their order;
            pixel (r, c) is that of the source. bool is written as BINARY, numbers in [0, 1] as
            FRACTIONAL probabilities of 8 bits.
        sources: one object, or single-frame ones of one series, such as `read_source` gives.
        record: how the mask was made.
        label: of the segment, at most 64 characters.

    Raises InvalidInput if mask and sources do not fit each other, or a source lacks identity.
    """
    with quiet():
        return _build(mask, source_frames(sources), record, label)


def _build(mask: Mask, frames: list[SourceFrame], record: Record, label: str) -> Dataset:
    planes = _planes(mask, frames)
    binary = planes.dtype == bool
    content = _packed(planes)
    decided = label.encode() + content
    dataset = derive(frames, record, uid.SegmentationStorage, "Anomaly mask", decided)
    dataset.Modality = "SEG"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentLabel = "ANOMALY"
    dataset.ContentDescription = dataset.SeriesDescription
    dataset.ContentCreatorName = ""
    dataset.SegmentationType = "BINARY" if binary else "FRACTIONAL"
    if not binary:
        dataset.SegmentationFractionalType = "PROBABILITY"
        dataset.MaximumFractionalValue = 255
    dataset.SegmentsOverlap = "NO"
    dataset.SegmentSequence = Items([_segment(record, label)])
    _put_pixels(dataset, planes, content)
    _put_frames(dataset, frames, dicom_uid(record, "dimension", dataset.SOPInstanceUID))
    return dataset


def _planes(mask: Mask, frames: list[SourceFrame]) -> Mask:
    """The mask as (F, H, W) of bool or of numbers in [0, 1]."""
    planes = np.asarray(mask)
    planes = planes[None] if planes.ndim == 2 else planes
    source = frames[0].instance
    needed = (len(frames), source.get("Rows"), source.get("Columns"))
    if planes.shape != needed:
        raise InvalidInput(
            f"mask has the shape {planes.shape}, but the sources have {needed} frames, rows and "
            "columns; bring it back to the source's pixels first"
        )
    if planes.dtype == bool:
        return planes
    if planes.dtype.kind != "f" or not ((planes >= 0) & (planes <= 1)).all():
        raise InvalidInput(
            f"mask has the type {planes.dtype}, but must be bool, or float within [0, 1]; compare "
            "it with a threshold first"
        )
    return planes


def _packed(planes: Mask) -> bytes:
    """All frames without a gap, eight binary pixels to a byte (PS3.5 8.1.1)."""
    if planes.dtype == bool:
        data = np.packbits(planes.ravel(), bitorder="little").tobytes()
    else:
        data = np.rint(planes * 255).astype(np.uint8).tobytes()
    return data + b"\0" * (len(data) % 2)


def _put_pixels(dataset: Dataset, planes: Mask, content: bytes) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = planes.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1 if planes.dtype == bool else 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = content
    dataset["PixelData"].VR = "OB"


def _segment(record: Record, label: str) -> Dataset:
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = coded(codes.DCM.ArtificialIntelligence)
    algorithm.AlgorithmName = shorten(f"medphantom {record.task}", 64)
    algorithm.AlgorithmVersion = shorten(record.software, 64)
    algorithm.AlgorithmSource = shorten(record.model, 64)
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = shorten(label, 64)
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = algorithm.AlgorithmName
    segment.SegmentationAlgorithmIdentificationSequence = Items([algorithm])
    # no narrower type: what departs from healthy anatomy need not be a lesion
    abnormal = coded(codes.SCT.MorphologicallyAbnormalStructure)
    segment.SegmentedPropertyCategoryCodeSequence = abnormal
    segment.SegmentedPropertyTypeCodeSequence = abnormal
    return segment


def _put_frames(dataset: Dataset, frames: list[SourceFrame], organization: uid.UID) -> None:
    """Functional groups and dimensions (PS3.3 C.7.6.16 and C.7.6.17).

    Frames are told apart by their number in the stack, which every source has; where each lies in
    the patient is said if the source says it of all.
    """
    shared, own = Dataset(), [_frame(index, frame) for index, frame in enumerate(frames, 1)]
    segment = Dataset()
    segment.ReferencedSegmentNumber = 1
    shared.SegmentIdentificationSequence = Items([segment])
    if all(has(frame.elements, keyword) for frame in frames for keyword in _PLACE):
        copy_elements(
            dataset, frames[0].instance, ("FrameOfReferenceUID", "PositionReferenceIndicator")
        )
        dataset.setdefault("PositionReferenceIndicator", "")
        _put_place(shared, own, frames)
    else:
        dataset.PatientOrientation = ""
        copy_elements(dataset, frames[0].elements, ("PatientOrientation",))
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(own)
    dimension = Dataset()
    dimension.DimensionOrganizationUID = organization
    dataset.DimensionOrganizationSequence = Items([dimension])
    dataset.DimensionIndexSequence = Items(
        [
            _index("ReferencedSegmentNumber", "SegmentIdentificationSequence", organization),
            _index("StackID", "FrameContentSequence", organization),
            _index("InStackPositionNumber", "FrameContentSequence", organization),
        ]
    )


def _frame(index: int, frame: SourceFrame) -> Dataset:
    place = Dataset()
    place.StackID = "1"
    place.InStackPositionNumber = index
    place.DimensionIndexValues = [1, 1, index]
    derivation = Dataset()
    derivation.DerivationCodeSequence = coded(_SEGMENTATION)
    derivation.SourceImageSequence = Items([source_image(frame)])
    item = Dataset()
    item.FrameContentSequence = Items([place])
    item.DerivationImageSequence = Items([derivation])
    return item


def _put_place(shared: Dataset, own: list[Dataset], frames: list[SourceFrame]) -> None:
    """Repeat position, orientation and spacing, once for all frames where they agree."""
    for macro, keywords in (
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
        ("PlanePositionSequence", ("ImagePositionPatient",)),
    ):
        items = [Dataset() for _ in frames]
        for item, frame in zip(items, frames, strict=True):
            copy_elements(item, frame.elements, keywords)
        agree = macro != "PlanePositionSequence" and all(item == items[0] for item in items)
        for group, item in [(shared, items[0])] if agree else zip(own, items, strict=True):
            setattr(group, macro, Items([item]))


def _index(keyword: str, macro: str, organization: uid.UID) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = tag_for_keyword(keyword)
    item.FunctionalGroupPointer = tag_for_keyword(macro)
    item.DimensionDescriptionLabel = keyword
    return item
