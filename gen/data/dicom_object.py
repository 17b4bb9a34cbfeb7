"""The DICOM object around a synthetic picture: what made it, and that nobody was imaged."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from gen.data.dicom_elements import coded, decimals, shorten
from gen.data.dicom_origin import file_meta, say_synthetic
from gen.data.medical_image import to_integers
from gen.data.provenance import Record, dicom_uid
from gen.errors import InvalidInput

SopClass = Literal["DX", "SC"]

# Type 1 in DX, so without a spacing the picture is taken to fill a 43 cm detector.
NOMINAL_FIELD_MM = 430.0

_VIEWS = {
    "PA": codes.cid4010.PosteroAnterior,
    "AP": codes.cid4010.AnteroPosterior,
    "LL": codes.cid4010.LeftLateral,
    "RL": codes.cid4010.RightLateral,
}
_ORIENTATIONS = {"PA": ["L", "F"], "AP": ["L", "F"], "LL": ["A", "F"], "RL": ["P", "F"]}


def build_dicom(
    pixels: NDArray[np.floating],
    record: Record,
    *,
    sop_class: SopClass = "DX",
    bits: int = 16,
    spacing_mm: tuple[float, float] | None = None,
    view: str | None = None,
) -> Dataset:
    """Build the object for pixels (H, W) in [0, 1]; the same arguments give the same bytes.

    DX must state a detector spacing: without `spacing_mm` it is nominal, 430 mm over the longer
    side, and DerivationDescription says so. Secondary Capture then states none.
    """
    if sop_class not in ("DX", "SC"):
        raise InvalidInput(f"sop_class is {sop_class!r}, but only 'DX' and 'SC' can be written")
    if view is not None and view not in _VIEWS:
        raise InvalidInput(f"view is {view!r}, but it must be one of {', '.join(_VIEWS)} or None")
    _check_spacing(spacing_mm)
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _identify(dataset, record, f"{sop_class}-{bits}")
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.LossyImageCompression = "00"
    dataset.ImageComments = shorten(f"Synthetic. Prompt: {record.prompt}", 10240)
    say_synthetic(dataset, record, record.describe())
    _put_pixels(dataset, to_integers(pixels, bits), bits)
    if sop_class == "DX":
        _as_digital_x_ray(dataset, spacing_mm, view)
    else:
        _as_secondary_capture(dataset, spacing_mm)
    dataset.file_meta = file_meta(dataset)
    return dataset


def _identify(dataset: Dataset, record: Record, kind: str) -> None:
    """Patient, study and series that nobody can take for a person's."""
    short = record.record_sha256[:16]
    dataset.PatientName = "Synthetic^Phantom"
    dataset.PatientID = f"SYNTHETIC-{short}"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = short
    # what was made from an image may show whom that shows
    whose = "made from another image" if record.source_sha256 else "not of a patient"
    dataset.StudyDescription = f"Synthetic image, {whose}"
    dataset.StudyInstanceUID = dicom_uid(record, "study")
    dataset.SeriesInstanceUID = dicom_uid(record, f"series-{kind}")
    dataset.SOPInstanceUID = dicom_uid(record, f"instance-{kind}")
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.ContentDate = dataset.ContentTime = ""


def _put_pixels(dataset: Dataset, values: NDArray[np.uint8 | np.uint16], bits: int) -> None:
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits


def _as_digital_x_ray(
    dataset: Dataset, spacing_mm: tuple[float, float] | None, view: str | None
) -> None:
    """Digital X-Ray Image, For Presentation (PS3.3 A.26)."""
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1  # brighter pixels, fewer X-rays
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = coded(codes.cid4009.Chest)
    dataset.DetectorType = dataset.PositionerType = ""
    if spacing_mm is None:
        nominal = NOMINAL_FIELD_MM / max(dataset.Rows, dataset.Columns)
        spacing_mm = (nominal, nominal)
        dataset.DerivationDescription += " Pixel spacing is nominal: do not measure."
    dataset.ImagerPixelSpacing = decimals(spacing_mm)
    dataset.PatientOrientation = _ORIENTATIONS[view or "PA"]
    dataset.ViewPosition = view or ""
    dataset.ViewCodeSequence = coded(_VIEWS[view] if view else codes.cid4010.Frontal)
    dataset.AcquisitionContextSequence = Sequence()


def _as_secondary_capture(dataset: Dataset, spacing_mm: tuple[float, float] | None) -> None:
    """Secondary Capture Image (PS3.3 A.8), conversion type "synthetic image"."""
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.PatientOrientation = dataset.Laterality = ""
    if spacing_mm is not None:
        dataset.PixelSpacing = decimals(spacing_mm)


def _check_spacing(spacing_mm: tuple[float, float] | None) -> None:
    if spacing_mm is not None and not all(0 < value < 1e6 for value in spacing_mm):
        raise InvalidInput(
            f"spacing_mm is {spacing_mm}, but both numbers must be positive; pass None if unknown"
        )
