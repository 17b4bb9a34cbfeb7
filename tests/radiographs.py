"""A computed radiograph as it comes from a scanner, and the validator of what is made of it."""

from typing import Any

from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def radiograph(pixels: NDArray[Any], patient: str = "CANARY-7") -> Dataset:
    """Inverted, with a window, of 12 bits; several frames become a secondary capture."""
    frames = pixels.ndim == 3
    capture = uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset = Dataset()
    dataset.SOPClassUID = capture if frames else uid.ComputedRadiographyImageStorage
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CR", "Canary^Carla", patient
    dataset.PatientBirthDate, dataset.PatientSex = "19700102", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200304", "101112", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (
        uid.generate_uid(entropy_srcs=["anomaly", patient, each]) for each in "abc"
    )
    dataset.InstanceNumber, dataset.BodyPartExamined = 4, "CHEST"
    dataset.ImagerPixelSpacing, dataset.BurnedInAnnotation = [0.2, 0.1], "NO"
    dataset.PatientOrientation = ["L", "F"]
    dataset.WindowCenter, dataset.WindowWidth = 2000, 3000
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    if frames:
        dataset.NumberOfFrames, dataset.ConversionType = len(pixels), "WSD"
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
