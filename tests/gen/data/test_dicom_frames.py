"""All frames of a DICOM file, each as it is meant to be looked at, within bounds."""

import io
import logging
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from gen.data.dicom import read_dicom, read_frames
from gen.data.limits import Limits
from gen.errors import UnsafeFile

STACK = (np.arange(3 * 4 * 6, dtype=np.uint16) * 50).reshape(3, 4, 6)


def multi_frame(stored: np.ndarray = STACK, **changes: Any) -> Dataset:
    """A magnetic resonance object of several frames, 12 bits each."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.EnhancedMRImageStorage, "1.2.3"
    dataset.Modality = "MR"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape[:3]
    dataset.SamplesPerPixel = 3 if stored.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 4 else "MONOCHROME2"
    if stored.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = min(12, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def content(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def window(center: float, width: float) -> Dataset:
    return item(FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=width)])


def test_frames_come_in_the_order_of_the_file() -> None:
    stack = read_frames(content(multi_frame()))
    np.testing.assert_allclose(stack.pixels, STACK / 4095, atol=1e-6)
    assert (stack.bits, stack.modality, stack.spacing_mm) == (12, "MR", None)


def test_a_single_frame_is_a_stack_of_one() -> None:
    data = content(multi_frame(STACK[:1], PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_frames(data).pixels[0], read_dicom(data).pixels)


def test_colour_frames_become_luma() -> None:
    colours = np.zeros((2, 2, 2, 3), np.uint8)
    colours[1, ..., 1] = 255
    stack = read_frames(content(multi_frame(colours)))
    np.testing.assert_allclose(stack.pixels, [np.zeros((2, 2)), np.full((2, 2), 0.587)], atol=1e-5)


@pytest.mark.parametrize("undefined_length", [False, True])
def test_each_frame_of_an_enhanced_object_has_its_own_rescale_and_window(
    undefined_length: bool,
) -> None:
    own = Sequence(
        [
            window(1000, 2001),
            window(500.5, 1001),
            item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-100)]),
        ]
    )
    shared = window(2000, 4001)
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.5, 0.25])]
    dataset = multi_frame(
        SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=own
    )
    if undefined_length:
        dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
        dataset["SharedFunctionalGroupsSequence"].is_undefined_length = True
    stack = read_frames(content(dataset))
    first, second = (STACK[0] + 0.5) / 2000, (STACK[1] - 0.0) / 1000
    third = (STACK[2] * 2.0 - 100 + 0.5) / 4000
    for frame, expected in zip(stack.pixels, (first, second, third), strict=True):
        np.testing.assert_allclose(frame, np.clip(expected, 0, 1), atol=1e-3)
    assert stack.spacing_mm == (0.5, 0.25)


def test_signed_frames_without_a_window_share_the_span_of_the_stack() -> None:
    stack = read_frames(content(multi_frame((STACK // 2).astype(np.int16) - 500)))
    np.testing.assert_allclose(stack.pixels, STACK / STACK.max(), atol=1e-6)


def test_an_empty_frame_is_kept_but_an_empty_stack_is_refused() -> None:
    half = STACK * np.array([0, 1, 1], np.uint16)[:, None, None]
    assert read_frames(content(multi_frame(half))).pixels[0].max() == 0
    with pytest.raises(UnsafeFile, match="is constant"):
        read_frames(content(multi_frame(STACK * 0)))


def test_compressed_frames_are_read_where_each_is_one_fragment() -> None:
    dataset = multi_frame()
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    np.testing.assert_allclose(read_frames(content(dataset)).pixels, STACK / 4095, atol=1e-6)
    grey = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (2, 16, 1))
    grey[1] = 255 - grey[1]
    streams = [io.BytesIO() for _ in grey]
    for frame, stream in zip(grey, streams, strict=True):
        Image.fromarray(frame).save(stream, "JPEG", quality=100)
    jpeg = multi_frame(grey, PixelData=encapsulate([stream.getvalue() for stream in streams]))
    jpeg["PixelData"].is_undefined_length = True
    jpeg.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    np.testing.assert_allclose(read_frames(content(jpeg)).pixels, grey / 255, atol=0.03)
    jpeg.NumberOfFrames = 3
    with pytest.raises(UnsafeFile, match="2 fragments for 3 compressed frames"):
        read_frames(content(jpeg))


@pytest.mark.parametrize("read", [read_dicom, read_frames])
def test_a_value_that_breaks_its_representation_is_not_logged(
    read: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pydicom.config.disable_value_validation():
        data = content(multi_frame(STACK[:1], Modality="canary in a code string"))
    caplog.set_level(logging.DEBUG)
    assert read(data).modality == "canary in a code string"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "limits", "reason"),
    [
        ({}, Limits(max_frames=2), "max_frames is 2"),
        ({"NumberOfFrames": 4}, Limits(max_frames=9), "is truncated"),
        ({"Rows": 5000}, Limits(max_frames=9), "max_side is 4096"),
    ],
)
def test_a_stack_over_its_limits_is_refused(
    changes: dict[str, Any], limits: Limits, reason: str
) -> None:
    with pytest.raises(UnsafeFile, match=reason):
        read_frames(content(multi_frame(**changes)), limits)


def test_a_window_as_long_as_a_book_is_refused() -> None:
    own = [item(FrameVOILUTSequence=[item(WindowCenter=["1"] * 4000, WindowWidth="2")])]
    dataset = multi_frame(PerFrameFunctionalGroupsSequence=own)
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    with pytest.raises(UnsafeFile, match=r"\(0028,1050\) of a frame"):
        read_frames(content(dataset))


@pytest.mark.parametrize("nested", [False, True])
def test_functional_groups_of_countless_empty_items_are_given_up(nested: bool) -> None:
    bomb = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 20_000
    if nested:
        head = b"\x28\x00\x45\x91SQ\0\0" + len(bomb).to_bytes(4, "little")
        bomb = b"\xfe\xff\x00\xe0" + (len(bomb) + 12).to_bytes(4, "little") + head + bomb
    tail = b"\x00\x52\x30\x92SQ\0\0" + len(bomb).to_bytes(4, "little") + bomb
    dataset = multi_frame()
    pixels = dataset["PixelData"]
    del dataset["PixelData"]
    rest = b"\xe0\x7f\x10\x00OW\0\0" + len(pixels.value).to_bytes(4, "little") + pixels.value
    with pytest.raises(UnsafeFile, match="too many elements"):
        read_frames(content(dataset) + tail + rest)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_object_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25])])
    original = content(
        multi_frame(
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=[window(1000, 2000 + each) for each in range(3)],
        )
    )
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        mutated[data.draw(st.integers(132, len(mutated) - 150))] = data.draw(st.integers(0, 255))
    try:
        pixels = read_frames(bytes(mutated)).pixels
    except UnsafeFile:
        return
    assert 0 <= pixels.min() < pixels.max() <= 1
