"""PNG and JPEG: right grey values, bounded cost, whole files."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gen.data.dicom import write_dicom
from gen.data.images import Limits, read_image, stored_size, to_integers, write_png
from gen.data.provenance import Record
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    model="cxr-mini", weight_sha256="0" * 64, prompt="Clear lungs", seed=7, scheduler="ddim",
    num_inference_steps=4, guidance_scale=4.0, height=8, width=8,
)  # fmt: skip
RAMP = np.arange(64, dtype=np.float32).reshape(8, 8) / 63

ReadInAChild = Callable[[str, bytes], tuple[str, float]]


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def black_png(side: int, extra: bytes = b"") -> bytes:
    """A picture of side x side black bits: large when decoded, small as a file."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    deflate = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_sixteen_bit_grey_keeps_its_contrast_instead_of_saturating() -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = read_image(encoded(Image.fromarray(levels), "PNG"))
    assert image.bits == 16
    np.testing.assert_allclose(image.pixels, levels / 65535, atol=1e-6)
    assert to_integers(image.pixels, 8).mean() == pytest.approx(127.5, abs=1)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    levels=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9)),
    bits=st.sampled_from([8, 16]),
)
def test_a_png_gives_back_the_levels_that_were_written(
    tmp_path: Path, levels: np.ndarray, bits: int
) -> None:
    levels[0, 0], levels[0, 1] = 0, 65535
    if bits == 8:
        levels //= 257
    write_png(tmp_path / "x.png", levels / (2**bits - 1), RECORD, bits=bits, overwrite=True)
    image = read_image(tmp_path / "x.png")
    assert image.bits == bits
    np.testing.assert_array_equal(to_integers(image.pixels, bits), levels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_every_png_mode_becomes_grey_between_zero_and_one(mode: str) -> None:
    picture = Image.fromarray(to_integers(RAMP, 8)).convert("RGB" if mode != "1" else "L")
    image = read_image(encoded(picture.convert(mode), "PNG"))
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape == (8, 8)
    assert (image.pixels.min(), image.pixels.max()) == (0, 1)


def test_colour_becomes_luma() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    image = read_image(encoded(Image.fromarray(colours), "PNG"))
    np.testing.assert_allclose(image.pixels, [[0.299, 0.587, 0.114]], atol=0.003)


def test_a_jpeg_is_read_and_its_name_kept(tmp_path: Path) -> None:
    (tmp_path / "chest.png").write_bytes(
        encoded(Image.fromarray(to_integers(RAMP, 8)), "JPEG", quality=100)
    )
    image = read_image(tmp_path / "chest.png")
    np.testing.assert_allclose(image.pixels, RAMP, atol=0.02)
    assert (image.source, image.bits, image.spacing_mm) == ("chest.png", 8, None)


def test_a_huge_png_is_refused_before_it_is_decoded(read_in_a_child: ReadInAChild) -> None:
    outcome, peak_mb = read_in_a_child("bomb.png", black_png(20_000))
    assert outcome.startswith("UnsafeFile: bomb.png declares 20000 x 20000 pixels")
    assert peak_mb < 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"GIF89a" + bytes(200), "only PNG, JPEG and DICOM"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
        (encoded(Image.fromarray(to_integers(RAMP, 8)), "PNG")[:-30], "truncated or damaged"),
        (encoded(Image.fromarray(to_integers(RAMP, 8)), "JPEG")[:-30], "truncated or damaged"),
        (encoded(Image.new("L", (9, 9), 80), "PNG"), "is constant"),
        (black_png(4097), "max_side is 4096"),
        (b"\xff\xd8\xff" + b"\xff\xda" * 65, "65 scans"),
        (black_png(8, chunk(b"acTL", struct.pack(">II", 3, 0))), "max_frames is 1"),
    ],
)
def test_a_bad_picture_is_refused_with_the_rule_it_breaks(data: bytes, reason: str) -> None:
    with pytest.raises(UnsafeFile, match=reason):
        read_image(data)


def test_a_jpeg_of_several_pictures_never_reaches_the_mpo_reader() -> None:
    first, second = (Image.fromarray(to_integers(ramp, 8)) for ramp in (RAMP, RAMP.T))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(read_image(data).pixels, RAMP, atol=0.1)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_bytes=20), "max_bytes"),
        (Limits(max_side=7), "max_side"),
        (Limits(max_pixels=63), "max_pixels"),
    ],
)
def test_each_limit_is_kept(tmp_path: Path, limits: Limits, reason: str) -> None:
    write_png(tmp_path / "x.png", RAMP, RECORD)
    with pytest.raises(UnsafeFile, match=reason):
        read_image(tmp_path / "x.png", limits)


def test_limits_that_pillow_would_only_warn_about_cannot_be_asked_for() -> None:
    with pytest.raises(InvalidInput, match="no side above 9459"):
        Limits(max_side=10_000)
    with pytest.raises(InvalidInput, match="at least 1"):
        Limits(max_frames=0)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.png cannot be opened: No such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(UnsafeFile, match="not a regular file"):
        read_image(tmp_path)
    with pytest.raises(InvalidInput, match="not a usable path"):
        read_image("a\0b")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_picture_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    content = bytearray(encoded(Image.fromarray(to_integers(RAMP, 8)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_image(bytes(content))
    except UnsafeFile:
        return
    assert 0 <= image.pixels.min() < image.pixels.max() <= 1


@pytest.mark.parametrize(
    ("pixels", "bits", "reason"),
    [
        (RAMP * 2, 8, r"spans \[0, 2\]"),
        (np.full((2, 2), np.nan), 8, "NaN"),
        (np.zeros((0, 4)), 8, r"shape \(0, 4\)"),
        (np.zeros((1, 4, 4)), 8, r"\(H, W\)"),
        (RAMP, 12, "8 or 16"),
    ],
)
def test_pixels_that_cannot_be_written_are_named(
    tmp_path: Path, pixels: np.ndarray, bits: int, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        write_png(tmp_path / "x.png", pixels, RECORD, bits=bits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", RAMP, RECORD)
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(InvalidInput, match="exists and is not overwritten"):
        write_png(tmp_path / "x.png", 1 - RAMP, RECORD)
    assert (tmp_path / "x.png").read_bytes() == before
    write_png(tmp_path / "x.png", 1 - RAMP, RECORD, overwrite=True)
    assert (tmp_path / "x.png").read_bytes() != before
    with pytest.raises(InvalidInput, match="does not exist; make it"):
        write_png(tmp_path / "no" / "x.png", RAMP, RECORD)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_png(tmp_path / "x.png", RAMP, RECORD)
    before = (tmp_path / "x.png").read_bytes()

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"gen.data.atomic.os.{moment}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_png(tmp_path / "x.png", 1 - RAMP, RECORD, overwrite=True)
    assert (tmp_path / "x.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_the_stored_size_is_told_without_decoding(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    for kind in ("PNG", "JPEG"):
        assert stored_size(encoded(picture, kind)) == (3, 4)
    assert stored_size(black_png(1000)) == (1000, 1000)  # constant: reading it would be refused
    write_dicom(tmp_path / "a.dcm", RAMP, RECORD)
    assert stored_size(tmp_path / "a.dcm") == (8, 8)
    with pytest.raises(UnsafeFile, match="is empty"):
        stored_size(b"")
