"""DICOM objects as scanners and archives hold them, to derive others from; and their validator."""

from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

ROWS, COLUMNS, NUM_FRAMES = 5, 7, 3


def _common(sop_class: str, modality: str, **elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientName, dataset.PatientID = "Canärie^Patient", "CANARY-7"
    dataset.PatientBirthDate, dataset.PatientSex = "19700102", "F"
    dataset.StudyDate, dataset.StudyTime = "20200304", "101112"
    dataset.AccessionNumber, dataset.StudyID, dataset.InstanceNumber = "A1", "S1", 4
    dataset.Modality = modality
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    frames = int(dataset.get("NumberOfFrames", 1))
    dataset.PixelData = np.arange(frames * ROWS * COLUMNS, dtype="<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def radiograph() -> Dataset:
    """Computed radiography, inverted, with a window; its year is all that is known of its time."""
    return _common(
        uid.ComputedRadiographyImageStorage, "CR", PhotometricInterpretation="MONOCHROME1",
        WindowCenter=20, WindowWidth=30, ImagerPixelSpacing=[0.2, 0.1],
        BurnedInAnnotation="NO", PatientOrientation=["L", "F"],
    )  # fmt: skip


def digital_radiograph() -> Dataset:
    """Digital X-ray, lossy once, with a frame of reference but no place in it."""
    return _common(
        uid.DigitalXRayImageStorageForPresentation, "DX", FrameOfReferenceUID="1.2.3.9",
        LossyImageCompression="01", LossyImageCompressionRatio=12.5,
        LossyImageCompressionMethod="ISO_10918_1", PixelSpacing=[0.2, 0.1],
    )  # fmt: skip


def secondary_capture() -> Dataset:
    """A bare secondary capture: no frame of reference, and no word of the study but its UID."""
    dataset = _common(uid.SecondaryCaptureImageStorage, "OT", ConversionType="WSD")
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "InstanceNumber"):
        del dataset[keyword]
    del dataset.PatientBirthDate, dataset.PatientSex
    return dataset


def slices() -> list[Dataset]:
    """Three computed tomography slices of one series."""
    return [
        _common(
            uid.CTImageStorage, "CT", SOPInstanceUID=f"1.2.3.4.{number}", InstanceNumber=number,
            FrameOfReferenceUID="1.2.3.9", PositionReferenceIndicator="", SliceThickness=2.5,
            ImagePositionPatient=[-10, -20.5, 2.5 * number], PixelSpacing=[0.2, 0.1],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
        for number in range(1, NUM_FRAMES + 1)
    ]  # fmt: skip


def enhanced() -> Dataset:
    """An enhanced magnetic resonance object of three frames."""
    return _common(
        uid.EnhancedMRImageStorage, "MR", NumberOfFrames=NUM_FRAMES, FrameOfReferenceUID="1.2.3.9",
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[item(PixelSpacing=[0.2, 0.1], SliceThickness=3)],
                PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * index])])
            for index in range(NUM_FRAMES)
        ],
    )  # fmt: skip


def captured_frames() -> Dataset:
    """A secondary capture of three frames that lie nowhere."""
    return _common(
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT", NumberOfFrames=NUM_FRAMES,
        ConversionType="WSD",
    )  # fmt: skip


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value if not isinstance(value, list) else _sequence(value))
    return dataset


def _sequence(value: list[Any]) -> Any:
    return Sequence(value) if isinstance(value[0], Dataset) else value


SOURCES: dict[str, list[Dataset]] = {
    "CR": [radiograph()],
    "DX": [digital_radiograph()],
    "SC": [secondary_capture()],
    "CT": slices(),
    "MR": [enhanced()],
    "captured frames": [captured_frames()],
}
