"""A written slide is what OpenSlide, tifffile and the OME schema say it is, or it is not there."""

import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import ome_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from openslide import OpenSlide
from tifffile import TiffFile, TiffPage

from gen.data import slide_writer
from gen.data.provenance import Record
from gen.data.pyramid import halve
from gen.data.slide_writer import SlideWriter
from gen.errors import InvalidInput, UnsafeFile

Colours = Callable[[int, int], NDArray[np.uint8]]
WriteSlide = Callable[..., Path]

ODD_SIZES = [(1, 1), (257, 255), (300, 5000), (16, 16), (513, 1)]


def pyramid_of(image: NDArray[np.uint8], levels: int) -> list[NDArray[np.uint8]]:
    """The image and its halves."""
    result = [image]
    while len(result) < levels:
        result.append(halve(result[-1]))
    return result


def read_level(slide: OpenSlide, level: int) -> NDArray[np.uint8]:
    """All pixels of one level."""
    region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    assert region.getextrema()[3] == (255, 255), "a pixel is missing"
    return np.asarray(region.convert("RGB"))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_bands(
    path: Path, height: int, width: int, record: Record, bands: Iterable[NDArray[np.uint8]]
) -> None:
    with SlideWriter(path, height, width, microns_per_pixel=1, record=record, tile=16) as slide:
        for band in bands:
            slide.write(band)


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
@pytest.mark.parametrize("big", [False, True])
def test_openslide_reads_every_level_of_a_lossless_slide_bit_by_bit(
    write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch, height: int, width: int, big: bool
) -> None:
    if big:
        monkeypatch.setattr(slide_writer, "_LARGEST_CLASSIC_TIFF", 0)
    image = noise(height, width)
    with OpenSlide(write_slide(image, compression="deflate")) as slide:
        assert slide.dimensions == (width, height)
        assert max(slide.level_dimensions[-1]) <= 256
        for level, expected in enumerate(pyramid_of(image, slide.level_count)):
            np.testing.assert_array_equal(read_level(slide, level), expected)


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_openslide_reads_every_level_of_a_jpeg_slide_in_the_right_colours(
    write_slide: WriteSlide, colours: Colours, height: int, width: int
) -> None:
    image = colours(height, width)
    with OpenSlide(write_slide(image)) as slide:
        assert slide.level_count == len(slide.level_dimensions)
        for level, expected in enumerate(pyramid_of(image, slide.level_count)):
            difference = read_level(slide, level).astype(int) - expected
            assert np.abs(difference).max() <= (12 if min(expected.shape[:2]) > 1 else 40)
            assert np.abs(difference).mean() < 3


def test_a_region_across_tiles_lies_where_it_was_written(write_slide: WriteSlide) -> None:
    image = noise(600, 700)
    with OpenSlide(write_slide(image, compression="deflate", tile=64)) as slide:
        region = np.asarray(slide.read_region((123, 250), 0, (300, 200)).convert("RGB"))
    np.testing.assert_array_equal(region, image[250:450, 123:423])


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_tifffile_sees_one_ome_series_with_all_levels(
    write_slide: WriteSlide, height: int, width: int
) -> None:
    image = noise(height, width)
    with TiffFile(write_slide(image, compression="deflate")) as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        assert series.kind == "ome"
        assert len(series.levels) == len(tiff.pages)
        for level, expected in zip(series.levels, pyramid_of(image, len(tiff.pages)), strict=True):
            np.testing.assert_array_equal(level.asarray(), expected)


def test_bio_formats_finds_the_levels_in_the_first_directory_and_only_there(
    write_slide: WriteSlide, colours: Colours
) -> None:
    with TiffFile(write_slide(colours(700, 1100))) as tiff:
        first, *reduced = [page for page in tiff.pages if isinstance(page, TiffPage)]
        # its OMETiffReader takes SubIFDs, and leaves NewSubfileType 1 out of the planes
        assert first.subifds == tuple(page.offset for page in reduced)
        assert [page.offset for page in tiff.pages] == sorted(page.offset for page in tiff.pages)
        assert first.subfiletype == 0
        assert {page.subfiletype for page in reduced} == {1}
        for page in tiff.pages:
            # with (1, 1) its JPEGCodec would turn RGB into RGB once more
            assert page.tags["YCbCrSubSampling"].value == (2, 1)
        assert first.description.startswith("<?xml")
        assert first.description.endswith("</OME>")


def test_the_ome_xml_obeys_its_schema_and_states_size_and_scale(
    write_slide: WriteSlide, colours: Colours, slide_record: Record
) -> None:
    with TiffFile(write_slide(colours(300, 500), microns_per_pixel=0.2527)) as tiff:
        xml = tiff.pages[0].tags["ImageDescription"].value
    assert xml.isascii()
    ome = ome_types.from_xml(xml, validate=True)
    (image,) = ome.images
    assert image.description is not None
    assert "not of a patient" in image.description
    pixels = image.pixels
    assert (pixels.size_y, pixels.size_x, pixels.size_c) == (300, 500, 3)
    assert pixels.channels[0].samples_per_pixel == 3
    assert pixels.physical_size_x == pixels.physical_size_y == 0.2527
    assert pixels.physical_size_x_unit.value == "µm"
    (annotation,) = ome.structured_annotations
    assert annotation.value == slide_record.to_json()
    assert image.annotation_refs[0].id == annotation.id


def test_the_ome_xml_obeys_its_schema_whatever_the_model_is_called(
    write_slide: WriteSlide, colours: Colours, slide_record: Record
) -> None:
    record = slide_record.model_copy(update={"model": "\0 <modèle> & 胸水\x7f ]]>"})
    with TiffFile(write_slide(colours(1, 1), record=record)) as tiff:
        ome_types.from_xml(tiff.pages[0].tags["ImageDescription"].value, validate=True)


@pytest.mark.parametrize("microns_per_pixel", [0.001, 0.2527, 0.5, 10.0, 1000.0])
def test_the_scale_is_in_the_resolution_of_every_level(
    write_slide: WriteSlide, colours: Colours, microns_per_pixel: float
) -> None:
    path = write_slide(colours(40, 40), microns_per_pixel=microns_per_pixel, tile=16)
    with OpenSlide(path) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(microns_per_pixel)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(microns_per_pixel)
    with TiffFile(path) as tiff:
        for level, page in enumerate(tiff.pages):
            numerator, denominator = page.tags["XResolution"].value
            scale = 10_000 * denominator / numerator
            assert scale == pytest.approx(microns_per_pixel * 2**level, rel=1e-3)
            assert page.tags["ResolutionUnit"].value.name == "CENTIMETER"


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_the_record_comes_back(
    write_slide: WriteSlide, colours: Colours, slide_record: Record, compression: str
) -> None:
    assert Record.from_file(write_slide(colours(300, 7), compression=compression)) == slide_record


def test_a_tiff_of_somebody_else_or_a_broken_one_holds_no_record(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    data = write_slide(colours(20, 20)).read_bytes()
    (tmp_path / "other.tif").write_bytes(data.replace(b'Namespace="medphantom"', b'Namespace="x"'))
    (tmp_path / "bomb.tif").write_bytes(data.replace(b"<Image ID", b"<!Imag ID"))
    for name in ("other.tif", "bomb.tif"):
        with pytest.raises(InvalidInput, match=f"{name} holds no record"):
            Record.from_file(tmp_path / name)
    (tmp_path / "short.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnsafeFile, match="truncated or damaged"):
        Record.from_file(tmp_path / "short.tif")


@settings(max_examples=30, deadline=None)  # a disk may be slow
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    cuts=st.lists(st.integers(1, 79), max_size=5),
)
def test_how_the_rows_are_cut_into_bands_does_not_change_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    slide_record: Record,
    height: int,
    width: int,
    cuts: list[int],
) -> None:
    image, folder = noise(height, width), tmp_path_factory.mktemp("bands")
    write_bands(folder / "one.tif", height, width, slide_record, [image])
    bands = np.split(image, sorted(cut for cut in set(cuts) if cut < height))
    write_bands(folder / "many.tif", height, width, slide_record, bands)
    assert (folder / "one.tif").read_bytes() == (folder / "many.tif").read_bytes()


def test_memory_does_not_grow_with_height(tmp_path: Path, slide_record: Record) -> None:
    band = noise(64, 512)

    def peak(height: int) -> int:
        path = tmp_path / f"{height}.tif"
        tracemalloc.start()
        with SlideWriter(path, height, 512, microns_per_pixel=1, record=slide_record) as slide:
            for _ in range(height // 64):
                slide.write(band)
        _, result = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return result

    peak(64)  # what the libraries keep for good
    assert peak(8192) < 1.1 * peak(1024)


@pytest.mark.parametrize(
    ("band", "reason"),
    [
        (np.zeros((2, 30, 3), dtype=np.float32), "of float32, but it must be of uint8"),
        (np.zeros((2, 29, 3), dtype=np.uint8), r"\(2, 29, 3\), but it must be \(rows, 30, 3\)"),
        (np.zeros((2, 30), dtype=np.uint8), r"shape \(2, 30\)"),
        (np.zeros((2, 30, 4), dtype=np.uint8), r"shape \(2, 30, 4\)"),
        (np.zeros((0, 30, 3), dtype=np.uint8), "at least one row"),
        (np.zeros((21, 30, 3), dtype=np.uint8), "21 rows after 0, but height is 20"),
    ],
)
def test_a_wrong_band_is_refused_and_leaves_no_file(
    tmp_path: Path, slide_record: Record, band: NDArray[np.uint8], reason: str
) -> None:
    with (
        pytest.raises(InvalidInput, match=reason),
        SlideWriter(tmp_path / "x.tif", 20, 30, microns_per_pixel=1, record=slide_record) as slide,
    ):
        slide.write(band)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bands", [[], [noise(19, 30)]])
def test_a_missing_band_is_an_error_and_leaves_no_file(
    tmp_path: Path, slide_record: Record, bands: list[NDArray[np.uint8]]
) -> None:
    with pytest.raises(InvalidInput, match=f"has {19 * len(bands)} of 20 rows"):
        write_bands(tmp_path / "x.tif", 20, 30, slide_record, bands)
    assert not list(tmp_path.iterdir())


def test_an_exception_in_the_block_passes_through_and_leaves_no_file(
    tmp_path: Path, slide_record: Record
) -> None:
    bands = (noise(20 // rows, 30) for rows in (1, 0))
    with pytest.raises(ZeroDivisionError):
        write_bands(tmp_path / "x.tif", 20, 30, slide_record, bands)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_stays_unless_it_may_be_overwritten(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    (tmp_path / "x.ome.tif").write_text("precious")
    with pytest.raises(InvalidInput, match="exists and is not overwritten"):
        write_slide(colours(20, 20))
    assert (tmp_path / "x.ome.tif").read_text() == "precious"
    with OpenSlide(write_slide(colours(20, 20), overwrite=True)) as slide:
        assert slide.dimensions == (20, 20)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 0}, "height is 0"),
        ({"width": -3}, "width is -3"),
        ({"height": 2**31}, "height is 2147483648"),
        ({"height": 10**6, "width": 10**6}, "needs about .* its disk has"),
        ({"microns_per_pixel": 0}, "microns_per_pixel is 0"),
        ({"microns_per_pixel": float("nan")}, "microns_per_pixel is nan"),
        ({"compression": "lzw"}, "compression is 'lzw'"),
        ({"quality": 101}, "quality is 101"),
        ({"tile": 250}, "tile is 250, but it must be a multiple of 16"),
        ({"tile": 0}, "tile is 0"),
        ({"path": "missing/x.tif"}, "folder .*missing does not exist"),
    ],
)
def test_an_argument_that_breaks_a_rule_is_named(
    tmp_path: Path, slide_record: Record, change: dict[str, object], reason: str
) -> None:
    arguments = {
        "path": "x.tif", "height": 20, "width": 30, "microns_per_pixel": 0.5, **change,
    }  # fmt: skip
    arguments["path"] = tmp_path / str(arguments["path"])
    with pytest.raises(InvalidInput, match=reason):
        SlideWriter(record=slide_record, **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def write_noise(slide: SlideWriter, height: int) -> None:
    for top in range(0, height, 20):
        slide.write(noise(20, 1000, seed=top))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_disk_that_fills_up_is_told_and_leaves_no_file(
    small_disk: Path, slide_record: Record, compression: slide_writer.Compression
) -> None:
    height = 1000 if compression == "jpeg" else 200
    slide = SlideWriter(
        small_disk / "x.tif",
        height,
        1000,
        microns_per_pixel=1,
        record=slide_record,
        compression=compression,
        tile=64,
    )
    with pytest.raises(InvalidInput, match="MiB, but its disk was full after"), slide:
        write_noise(slide, height)
    assert not list(small_disk.iterdir())


def test_a_disk_too_small_is_told_before_anything_is_written(
    small_disk: Path, slide_record: Record
) -> None:
    with pytest.raises(InvalidInput, match=r"its disk has 0\.5 MiB left"):
        SlideWriter(small_disk / "x.tif", 4096, 4096, microns_per_pixel=1, record=slide_record)
    assert not list(small_disk.iterdir())


CHILD = """
import sys, numpy as np
from gen.data.provenance import Record
from gen.data.slide_writer import SlideWriter
record = Record.model_validate_json(sys.argv[2])
with SlideWriter(sys.argv[1], 64, 64, microns_per_pixel=1, record=record, tile=16) as slide:
    slide.write(np.zeros((int(sys.argv[3]), 64, 3), dtype=np.uint8))
    print("written", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("rows", [32, 64])
def test_a_killed_writer_leaves_nothing_under_the_name(
    tmp_path: Path, slide_record: Record, rows: int
) -> None:
    command = [sys.executable, "-c", CHILD, "x.tif", slide_record.to_json(), str(rows)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "x.tif").exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
