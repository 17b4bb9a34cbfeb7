"""DICOM parsed within bounds: transfer syntax first, few elements, nothing inflated or decoded."""

import logging
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, cast

from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from gen.data.limits import boundary
from gen.errors import InvalidInput, UnsafeFile

SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
)
# Group, creator and element of the record's private block.
RECORD_GROUP, RECORD_CREATOR, RECORD_ELEMENT = 0x4D51, "MEDPHANTOM", 0x01

_BULK = ("PixelData", "ModalityLUTSequence", "VOILUTSequence")
_SMALL = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelSpacing", "ImagerPixelSpacing", "Modality", "SOPClassUID", "SyntheticData"),
)
_RECORD_TAGS = (Tag(RECORD_GROUP, 0x10), Tag(RECORD_GROUP, 0x1000 + RECORD_ELEMENT))
# An element takes two or three reads: enough for thousands, too few for a bomb of empty items.
MAX_READS = 20_000
READS_A_FRAME = 600  # of an enhanced object, whose makers add private elements to each frame
MAX_SMALL_BYTES = 64 * 2**10
MAX_FRAME_BYTES = 16 * 2**10
MAX_LUT_BYTES = 512 * 2**10  # 65,536 entries of 16 bits, and some alternatives

_warnings_lock = threading.Lock()


class MeteredBytes(BytesIO):
    """A stream that ends the parse after `max_reads` reads, so nesting and counts are bounded."""

    def __init__(self, name: str, data: bytes, max_reads: int = MAX_READS) -> None:
        super().__init__(data)
        self.name = name
        self.reads = 0
        self.max_reads = max_reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > self.max_reads:
            raise UnsafeFile(
                f"{self.name} has too many elements, but reading is given up after "
                f"{self.max_reads} reads; remove private and nested ones"
            )
        return super().read(size)


def parse_dicom(
    name: str, data: bytes, *, also: Iterable[str] = (), max_frames: int = 1
) -> Dataset:
    """Return the elements of a DICOM file that matter to its picture, and nothing of the patient.

    `dcmread` inflates a deflated file without limit, so the syntax is looked at first.

    Args:
        name: for messages.
        data: the file.
        also: keywords of further elements, of the patient too where they are asked for.
        max_frames: more than one makes room for the functional groups of so many frames.
    """
    max_reads = MAX_READS + READS_A_FRAME * (max_frames - 1)
    stream = cast(BinaryIO, MeteredBytes(name, data, max_reads))
    stream.seek(132)
    with boundary(name), quiet():
        meta = read_dataset(stream, False, True, stop_when=_after_file_meta)
        syntax = uid.UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in SYNTAXES:
        stated = syntax.name[:64] or "missing"
        raise UnsafeFile(
            f"{name} has the transfer syntax {stated!r}, but only uncompressed, RLE Lossless and "
            "JPEG Baseline are read; convert it with `dcmconv +te` or `gdcmconv --raw`"
        )
    with boundary(name), quiet():
        dataset = read_dataset(
            stream, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=_wanted_tags(also)
        )
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        _check_lengths(name, dataset, max_frames)
    return dataset


def record_text(name: str, dataset: Dataset) -> str:
    """Return the JSON that `write_dicom` left in the private block."""
    with boundary(name), quiet():
        creator = dataset.get(_RECORD_TAGS[0])
        element = dataset.get(_RECORD_TAGS[1])
        if creator is not None and element is not None and creator.value == RECORD_CREATOR:
            value = element.value
            return value.decode("ascii") if isinstance(value, bytes) else str(value)
    raise InvalidInput(
        f"{name} holds no record: its private block {RECORD_CREATOR} is missing, perhaps removed "
        "by a de-identification; use the metadata.jsonl that was written beside it"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what pydicom warns and logs about a foreign file: it may quote the file's values."""
    logger = logging.getLogger("pydicom")
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        propagate, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.propagate = propagate


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _wanted_tags(also: Iterable[str]) -> list[BaseTag | int]:
    keywords = (tag_for_keyword(keyword) for keyword in (*_BULK, *_SMALL, *also))
    return [*(tag for tag in keywords if tag is not None), *_RECORD_TAGS]


def _check_lengths(name: str, dataset: Dataset, max_frames: int) -> None:
    """Bound the raw values before pydicom turns any of them into Python objects."""
    for tag in list(dataset.keys()):
        value: Any = dataset.get_item(tag).value
        limit = MAX_LUT_BYTES if tag in _LUT_TAGS else MAX_SMALL_BYTES
        if tag in _GROUP_TAGS:
            limit += MAX_FRAME_BYTES * max_frames
        if tag != _PIXEL_DATA and isinstance(value, bytes) and len(value) > limit:
            raise UnsafeFile(
                f"{name} has {len(value)} bytes in element {tag}, but at most {limit} are read; "
                "export it again without that element"
            )


_PIXEL_DATA = Tag("PixelData")
_GROUP_TAGS = (Tag("SharedFunctionalGroupsSequence"), Tag("PerFrameFunctionalGroupsSequence"))
_LUT_TAGS = (Tag("ModalityLUTSequence"), Tag("VOILUTSequence"))
