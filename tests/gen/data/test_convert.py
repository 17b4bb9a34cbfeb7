"""A finished image in another format is the same image with the same record."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from gen.data.convert import SLIDE_PREVIEW_SIDE, to_dicom, to_png, to_thumbnail
from gen.data.dicom import encode_dicom
from gen.data.images import encode_png, read_image
from gen.data.previews import LONGEST_SIDE, preview_png
from gen.data.provenance import Record
from gen.data.slide_writer import SlideWriter
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    model="cxr-mini", weight_sha256="0" * 64, prompt="Épanchement \\ pleural", seed=7,
    scheduler="ddim", num_inference_steps=4, guidance_scale=4.0, height=160, width=80,
)  # fmt: skip
PIXELS = np.random.default_rng(0).random((160, 80), dtype=np.float32)
LEVEL = 1 / 255


def png() -> bytes:
    stream = io.BytesIO()
    encode_png(stream, PIXELS, RECORD)
    return stream.getvalue()


def dicom() -> bytes:
    stream = io.BytesIO()
    encode_dicom(stream, PIXELS, RECORD)
    return stream.getvalue()


def record_of(data: bytes, folder: Path) -> Record:
    (folder / "file").write_bytes(data)
    return Record.from_file(folder / "file")


@pytest.mark.parametrize("source", [png, dicom])
@pytest.mark.parametrize("convert", [to_png, to_dicom])
def test_pixels_and_record_survive_and_so_does_the_mark(
    source: Callable[[], bytes], convert: Callable[[bytes, Record], bytes], tmp_path: Path
) -> None:
    data = convert(source(), RECORD)
    assert np.abs(read_image(data).pixels - PIXELS).max() <= 0.51 * LEVEL
    assert record_of(data, tmp_path) == RECORD
    if convert is to_dicom:
        assert pydicom.dcmread(io.BytesIO(data))[0x0008, 0x001C].value == "YES"
    else:
        picture = Image.open(io.BytesIO(data))
        assert isinstance(picture, PngImageFile)
        assert (picture.mode, picture.text["Synthetic"]) == ("L", "YES")


def test_converting_again_gives_the_same_bytes_and_uids() -> None:
    assert to_dicom(png(), RECORD) == to_dicom(png(), RECORD)
    uids = {
        pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID
        for data in (to_dicom(png(), RECORD), dicom())
    }
    assert len(uids) == 1


def test_a_png_through_dicom_and_back_is_the_same_file() -> None:
    assert to_png(to_dicom(png(), RECORD), RECORD) == png()


def test_a_thumbnail_is_small_keeps_the_shape_and_says_it_is_synthetic() -> None:
    picture = Image.open(io.BytesIO(to_thumbnail(dicom(), RECORD)))
    assert isinstance(picture, PngImageFile)
    assert (picture.size, picture.mode) == ((LONGEST_SIDE // 2, LONGEST_SIDE), "L")
    assert picture.text == {"Synthetic": "YES"}  # no prompt: lists are shown to others, too


def test_a_preview_averages_pixels_and_enlarges_nothing() -> None:
    blocks = np.kron(np.array([[0.0, 1.0], [0.25, 0.5]]), np.ones((128, 128)))
    noise = np.where(np.indices(blocks.shape).sum(0) % 2, 0.1, -0.1)
    preview = np.asarray(Image.open(io.BytesIO(preview_png(np.clip(blocks + noise, 0, 1)))))
    expected = np.kron(np.array([[0.05, 0.95], [0.25, 0.5]]), np.ones((64, 64)))
    assert np.abs(preview / 255 - expected).max() <= LEVEL
    assert Image.open(io.BytesIO(preview_png(PIXELS[:16, :8]))).size == (8, 16)


def test_what_is_no_picture_is_refused() -> None:
    for convert in (to_png, to_dicom, to_thumbnail):
        with pytest.raises(UnsafeFile):
            convert(b"GIF89a", RECORD)
    with pytest.raises(InvalidInput, match=r"every value must lie in \[0, 1\]"):
        preview_png(PIXELS + 1)


def slide(folder: Path, height: int, width: int) -> bytes:
    """A slide, red on the left and blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 200, 200
    with SlideWriter(
        folder / "a.tif", height, width, microns_per_pixel=0.5, record=RECORD, overwrite=True
    ) as writer:
        writer.write(pixels)
    return (folder / "a.tif").read_bytes()


@pytest.mark.parametrize("size", [(2000, 3000), (700, 300), (513, 512), (40, 60)])
def test_the_thumbnail_of_a_slide_is_the_whole_of_it_in_colour(
    size: tuple[int, int], tmp_path: Path
) -> None:
    with Image.open(io.BytesIO(to_thumbnail(slide(tmp_path, *size), RECORD))) as picture:
        assert picture.info["Synthetic"] == "YES"
        scale = min(1, SLIDE_PREVIEW_SIDE / max(size))
        assert picture.size == pytest.approx((size[1] * scale, size[0] * scale), abs=1)
        pixels = np.asarray(picture).astype(int)
    quarter = pixels.shape[1] // 4
    assert np.abs(pixels[:, :quarter] - (200, 0, 0)).max() < 30
    assert np.abs(pixels[:, -quarter:] - (0, 0, 200)).max() < 30


@pytest.mark.parametrize("convert", [to_png, to_dicom])
def test_a_slide_becomes_no_single_picture(
    convert: Callable[[bytes, Record], bytes], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="format=preview"):
        convert(slide(tmp_path, 40, 60), RECORD)


def test_a_damaged_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile):
        to_thumbnail(slide(tmp_path, 600, 600)[:200], RECORD)
