"""What an enhanced DICOM object says of each of its frames, as plain elements of that frame."""

from typing import BinaryIO, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag, Tag

from gen.data.dicom_header import MAX_READS, READS_A_FRAME, MeteredBytes
from gen.errors import UnsafeFile

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Rescale, window, spacing and place of a frame (PS3.3 C.7.6.16.2), and what each may override.
_MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
}
_MAX_VALUE_BYTES = 1024


class FunctionalGroups:
    """The functional groups of a parsed object.

    pydicom would expand a sequence of any count when it is looked at, so each is expanded here,
    with so many reads as `num_frames` frames may need.
    """

    def __init__(self, name: str, dataset: Dataset, num_frames: int) -> None:
        self._name = name
        self._reads_left = MAX_READS + READS_A_FRAME * num_frames
        self._common = Dataset()
        self._common.update(dataset)
        shared, own = (self._items(dataset, Tag(keyword)) for keyword in (SHARED, PER_FRAME))
        for keyword in (SHARED, PER_FRAME):
            self._common.pop(Tag(keyword), None)
        self._shared = self._macros(shared[0]) if shared else Dataset()
        self._own = [self._macros(item) for item in own]

    def elements(self, index: int) -> Dataset:
        """Elements of frame `index`, from 0: its own, else all frames', else the object's."""
        frame = Dataset()
        frame.update(self._common)
        frame.update(self._shared)
        if index < len(self._own):
            frame.update(self._own[index])
        return frame

    def _macros(self, item: Dataset) -> Dataset:
        """Elements of all macros of one item."""
        elements = Dataset()
        for macro, keywords in _MACROS.items():
            for inner in self._items(item, Tag(macro))[:1]:
                for tag in map(Tag, keywords):
                    if tag in inner:
                        elements[tag] = self._short(inner, tag)
        return elements

    def _short(self, dataset: Dataset, tag: BaseTag) -> DataElement:
        value = dataset.get_item(tag).value
        if isinstance(value, bytes) and len(value) > _MAX_VALUE_BYTES:
            raise UnsafeFile(
                f"{self._name} has {len(value)} bytes in element {tag} of a frame, but at most "
                f"{_MAX_VALUE_BYTES} are read; export it again without that element"
            )
        return dataset[tag]

    def _items(self, dataset: Dataset, tag: BaseTag) -> list[Dataset]:
        if tag not in dataset:
            return []
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement):
            return list(element.value)
        stream = MeteredBytes(self._name, element.value or b"", self._reads_left)
        items = read_sequence(
            cast(BinaryIO, stream),
            element.is_implicit_VR,
            element.is_little_endian,
            len(element.value or b""),
            "iso8859",
        )
        self._reads_left -= stream.reads
        return list(items)
