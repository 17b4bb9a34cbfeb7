"""The DICOM object that something is derived from: its patient, identity, frames and place."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from gen.data.dicom_elements import has, number
from gen.data.dicom_functional_groups import PER_FRAME, SHARED, FunctionalGroups
from gen.data.dicom_header import parse_dicom, quiet
from gen.data.limits import STACK_LIMITS, Limits, Source, boundary, read_bytes
from gen.errors import InvalidInput

# Type 2 where they are repeated: empty if the source lacks them.
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
# Type 3: left out if the source lacks them.
OPTIONAL = (
    *("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("StudyDescription", "PatientAge", "PatientSize", "PatientWeight"),
)
# Dates are tried in this order; each has its time.
MOMENTS = (
    *(("ContentDate", "ContentTime"), ("AcquisitionDate", "AcquisitionTime")),
    *(("SeriesDate", "SeriesTime"), ("StudyDate", "StudyTime")),
)
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_PLACE = (
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient"),
    *("ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "PatientOrientation"),
)
_PLAIN = (
    *PATIENT,
    *STUDY,
    *OPTIONAL,
    *(keyword for pair in MOMENTS for keyword in pair),
    *LOSSY,
    *_IDENTITY,
    *_PLACE,
    *("BurnedInAnnotation", "InstanceNumber"),
)


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a source.

    Args:
        instance: the object that holds it.
        number: from 1 in an object of several frames; None in one that has no frames.
        elements: what the object says of this frame.
    """

    instance: Dataset
    number: int | None
    elements: Dataset


def read_source(source: Source, limits: Limits = STACK_LIMITS) -> Dataset:
    """Read the patient, study, identity and geometry of a DICOM file; no pixels.

    Only for objects that join the same study: the result holds what identifies the patient.

    Raises:
        UnsafeFile: the file is too large or damaged.
        InvalidInput: the file cannot be opened, or it lacks identity.
    """
    name, data = read_bytes(source, limits)
    dataset = parse_dicom(
        name, data, also=(*_PLAIN, SHARED, PER_FRAME), max_frames=limits.max_frames
    )
    for keyword in ("PixelData", "ModalityLUTSequence", "VOILUTSequence"):
        if keyword in dataset:
            del dataset[keyword]
    with boundary(name), quiet():
        _check(dataset)
        rows, columns = number(name, dataset, "Rows"), number(name, dataset, "Columns")
        frames = number(name, dataset, "NumberOfFrames", default=1)
        limits.check_shape(name, columns, rows, frames)
        for keyword in _PLAIN:
            dataset.get(keyword)  # decoded here, where a bad value is refused and never quoted
    return dataset


def source_frames(sources: Sequence[Dataset]) -> list[SourceFrame]:
    """List the frames of one object, or of several of one series, in the order given.

    Raises InvalidInput if the sources lack identity, or differ in study, series or size.
    """
    if not sources:
        raise InvalidInput("sources is empty, but what is derived must name its source")
    for dataset in sources:
        _check(dataset)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Rows", "Columns"):
        if len({str(dataset.get(keyword)) for dataset in sources}) > 1:
            raise InvalidInput(
                f"sources differ in {keyword}, but must be of one series and size; derive one "
                "object from each series"
            )
    return [frame for dataset in sources for frame in _frames(dataset)]


def _frames(dataset: Dataset) -> list[SourceFrame]:
    if not has(dataset, "NumberOfFrames"):
        return [SourceFrame(dataset, None, dataset)]
    count = int(dataset.NumberOfFrames)
    groups = FunctionalGroups("the source", dataset, count)
    return [SourceFrame(dataset, index + 1, groups.elements(index)) for index in range(count)]


def _check(dataset: Dataset) -> None:
    for keyword in _IDENTITY:
        if not has(dataset, keyword):
            raise InvalidInput(
                f"the source has no {keyword}, but what is derived must refer to it; take the "
                "object as the archive gives it out"
            )
