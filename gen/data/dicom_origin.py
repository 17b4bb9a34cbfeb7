"""What every DICOM object of ours says of its origin: that it is synthetic, and what made it."""

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from gen.data.dicom_elements import coded, shorten
from gen.data.dicom_header import RECORD_CREATOR, RECORD_ELEMENT, RECORD_GROUP
from gen.data.provenance import Record


def say_synthetic(dataset: Dataset, record: Record, description: str) -> None:
    """Put Synthetic Data, the equipment that synthesised it (PS3.3 C.12.1) and the record.

    Args:
        dataset: the object.
        record: kept in a private block.
        description: for people; becomes DerivationDescription.
    """
    dataset.SyntheticData = "YES"
    dataset.DerivationDescription = shorten(description, 960)  # of 1024
    dataset.Manufacturer = "medphantom"
    dataset.ManufacturerModelName = shorten(record.model, 64)
    dataset.DeviceSerialNumber = record.weight_sha256
    dataset.SoftwareVersions = shorten(record.software, 64)
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = coded(codes.DCM.SynthesizingEquipment)
    equipment.Manufacturer = dataset.Manufacturer
    equipment.ManufacturerModelName = dataset.ManufacturerModelName
    equipment.DeviceSerialNumber = dataset.DeviceSerialNumber
    equipment.SoftwareVersions = dataset.SoftwareVersions
    equipment.ContributionDescription = dataset.DerivationDescription
    dataset.ContributingEquipmentSequence = Sequence([equipment])
    block = dataset.private_block(RECORD_GROUP, RECORD_CREATOR, create=True)
    block.add_new(RECORD_ELEMENT, "UT", record.to_json())


def file_meta(dataset: Dataset) -> FileMetaDataset:
    """File meta information of an uncompressed object."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return meta
