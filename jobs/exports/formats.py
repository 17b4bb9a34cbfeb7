"""The names of formats."""

from enum import StrEnum


class ExportFormat(StrEnum):
    """What a data set can be written as."""

    IMAGEFOLDER = "imagefolder"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    MONAI = "monai"
    NNUNET = "nnunet"
    COCO = "coco"
    DICOM = "dicom"
