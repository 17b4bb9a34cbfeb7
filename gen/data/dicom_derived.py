"""What a DICOM object derived from a patient's image repeats of it, and says of its making."""

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from gen.data.dicom_elements import coded, has
from gen.data.dicom_header import quiet
from gen.data.dicom_origin import file_meta, say_synthetic
from gen.data.dicom_source import LOSSY, MOMENTS, OPTIONAL, PATIENT, STUDY, SourceFrame
from gen.data.provenance import Record, dicom_uid


def derive(
    frames: list[SourceFrame], record: Record, sop_class: uid.UID, what: str, content: bytes
) -> Dataset:
    """Start an object of a new series in the study of its source.

    Args:
        frames: of the source.
        record: with the source and `content` it decides every UID, so that writing again gives
            equal bytes.
        sop_class: of the new object.
        what: for people, such as "Anomaly mask".
        content: the pixel data, and whatever else the record does not decide.
    """
    source = frames[0].instance
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _repeat(dataset, source)
    dataset.SOPClassUID = sop_class
    dataset.SeriesInstanceUID = dicom_uid(record, f"series-{what}", source.SeriesInstanceUID)
    origins = [f"{frame.instance.SOPInstanceUID} {frame.number}" for frame in frames]
    digest = hashlib.sha256(content).hexdigest()
    dataset.SOPInstanceUID = dicom_uid(record, f"instance-{what}", *origins, digest)
    dataset.SeriesDescription = f"{what}, synthetic"
    dataset.SeriesNumber = 9000  # after those of scanners
    dataset.InstanceNumber = frames[0].number or int(source.get("InstanceNumber") or 1)
    say_synthetic(
        dataset,
        record,
        f"{what} derived from the source image by {record.model} (weights "
        f"{record.weight_sha256[:12]}), {record.software}. Made by a program, no diagnosis.",
    )
    dataset.ReferencedSeriesSequence = _referenced_series(frames)
    dataset.file_meta = file_meta(dataset)
    return dataset


def source_image(frame: SourceFrame) -> Dataset:
    """Refer to one frame, of which every pixel has its place in the new object."""
    item = _referenced_instance(frame.instance)
    if frame.number is not None:
        item.ReferencedFrameNumber = frame.number
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = coded(codes.DCM.SourceImageForImageProcessingOperation)
    return item


def encode(stream: BinaryIO, dataset: Dataset) -> None:
    """Write an object into an open stream."""
    with quiet():
        dcmwrite(stream, dataset, enforce_file_format=True)


def copy_elements(dataset: Dataset, source: Dataset, keywords: Iterable[str]) -> None:
    """Copy those elements that the source has, as text and numbers."""
    for keyword in keywords:
        if has(source, keyword):
            value = source[keyword].value
            # a name remembers the bytes of its own character set
            setattr(dataset, keyword, str(value) if source[keyword].VR == "PN" else value)


def _repeat(dataset: Dataset, source: Dataset) -> None:
    dataset.StudyInstanceUID = source.StudyInstanceUID
    for keyword in (*PATIENT, *STUDY):
        setattr(dataset, keyword, "")
    copy_elements(dataset, source, (*PATIENT, *STUDY, *OPTIONAL))
    # the source's moment: a clock would give other bytes each time
    date, time = next((pair for pair in MOMENTS if has(source, pair[0])), MOMENTS[0])
    dataset.ContentDate = source.get(date) or "19000101"
    dataset.ContentTime = source.get(time) or "000000"
    dataset.LossyImageCompression = "00"
    copy_elements(dataset, source, LOSSY)


def _referenced_series(frames: list[SourceFrame]) -> Sequence:
    """Common Instance Reference (PS3.3 C.12.2)."""
    series = Dataset()
    series.SeriesInstanceUID = frames[0].instance.SeriesInstanceUID
    instances = {frame.instance.SOPInstanceUID: frame.instance for frame in frames}
    series.ReferencedInstanceSequence = Sequence(map(_referenced_instance, instances.values()))
    return Sequence([series])


def _referenced_instance(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item
