"""Any region of any slide, and clear words about what is none."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from gen.data.limits import Limits
from gen.data.slide import open_slide, thumbnail
from gen.errors import InvalidInput, UnsafeFile

Colours = Callable[[int, int], NDArray[np.uint8]]
WriteSlide = Callable[..., Path]


def test_a_region_of_a_slide_is_cut_from_the_full_resolution(
    write_slide: WriteSlide, colours: Colours
) -> None:
    image = colours(300, 700)
    with open_slide(write_slide(image, compression="deflate", microns_per_pixel=0.25)) as slide:
        assert (slide.height, slide.width) == (300, 700)
        assert slide.microns_per_pixel == pytest.approx(0.25)
        region = slide.read(17, 250, 200, 300)
        assert region.dtype == np.uint8
        np.testing.assert_array_equal(region, image[17:217, 250:550])
        np.testing.assert_array_equal(slide.read(0, 0, 300, 700), image)


def test_a_region_of_a_picture_is_cut_alike(picture_file: Path, colours: Colours) -> None:
    with open_slide(picture_file) as slide:
        assert (slide.height, slide.width, slide.microns_per_pixel) == (30, 50, None)
        np.testing.assert_array_equal(slide.read(3, 40, 27, 10), colours(30, 50)[3:30, 40:50])


def test_a_grey_picture_is_read_in_colour(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint8) * 200).save(tmp_path / "grey.png")
    with open_slide(tmp_path / "grey.png") as slide:
        region = slide.read(0, 0, 4, 4)
    np.testing.assert_array_equal(region, np.eye(4)[..., None].repeat(3, axis=2) * 200)


def test_a_slide_is_known_by_its_content_not_its_name(
    write_slide: WriteSlide, colours: Colours
) -> None:
    with open_slide(write_slide(colours(20, 30), name="slide.png")) as slide:
        assert (slide.height, slide.width) == (20, 30)


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 31, 5), (26, 0, 5, 5), (0, 46, 5, 5),
               (0, 0, 0, 5), (0, 0, 5, -5)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["slide", "picture"])
def test_a_region_that_reaches_beyond_is_an_error(
    write_slide: WriteSlide,
    colours: Colours,
    picture_file: Path,
    kind: str,
    region: tuple[int, int, int, int],
) -> None:
    path = picture_file if kind == "picture" else write_slide(colours(30, 50))
    with (
        open_slide(path) as slide,
        pytest.raises(InvalidInput, match=r"has 30 x 50 pixels \(height x width\)"),
    ):
        slide.read(*region)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, no slide", "starts with b'hell', but only PNG, JPEG and what OpenSlide reads"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
        (b"\xff\xd8\xff\xe0 no picture", "truncated or damaged"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "only PNG, JPEG and what OpenSlide reads"),
    ],
)
def test_what_is_no_slide_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.svs").write_bytes(content)
    with pytest.raises(UnsafeFile, match=reason):
        open_slide(tmp_path / "x.svs")
    with pytest.raises(UnsafeFile, match=reason):
        thumbnail(tmp_path / "x.svs", 8)


def test_a_tiff_without_tiles_or_that_is_cut_short_is_no_slide(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    tifffile.imwrite(tmp_path / "strips.tif", colours(20, 20), photometric="rgb")
    with pytest.raises(UnsafeFile, match="tiled TIFF"):
        open_slide(tmp_path / "strips.tif")
    data = write_slide(colours(300, 300)).read_bytes()
    (tmp_path / "short.tif").write_bytes(data[:-900])
    with pytest.raises(UnsafeFile):
        open_slide(tmp_path / "short.tif")


def test_a_damaged_tile_is_an_error_when_it_is_read(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    data = bytearray(write_slide(colours(300, 300)).read_bytes())
    data[16:700] = bytes(684)  # of the first tile
    (tmp_path / "bad.tif").write_bytes(data)
    with open_slide(tmp_path / "bad.tif") as slide, pytest.raises(UnsafeFile, match="damaged"):
        slide.read(0, 0, 10, 10)


def test_a_missing_file_a_folder_and_a_picture_too_large_are_refused(
    tmp_path: Path, picture_file: Path
) -> None:
    with pytest.raises(InvalidInput, match="cannot be opened: No such file"):
        open_slide(tmp_path / "missing.tif")
    with pytest.raises(UnsafeFile, match="not a regular file"):
        open_slide(tmp_path)
    with pytest.raises(UnsafeFile, match="max_side is 40"):
        open_slide(picture_file, Limits(max_side=40))


def test_tiles_larger_than_memory_allows_are_refused_unread(
    write_slide: WriteSlide, colours: Colours
) -> None:
    path = write_slide(colours(20, 20), tile=4096)
    with pytest.raises(UnsafeFile, match="tiles of 4096 x 4096 pixels, but max_pixels is 1000000"):
        open_slide(path, Limits(max_pixels=10**6))


@pytest.mark.parametrize(("height", "width"), [(700, 1300), (1300, 700), (10, 20)])
def test_a_thumbnail_keeps_the_proportions_and_the_corners(
    write_slide: WriteSlide, colours: Colours, height: int, width: int
) -> None:
    image = colours(height, width)
    small = thumbnail(write_slide(image), 100)
    assert max(small.size) == min(100, max(height, width))
    assert small.width / small.height == pytest.approx(width / height, rel=0.02)
    pixels = np.asarray(small)
    for row in (0, -1):
        for column in (0, -1):
            np.testing.assert_allclose(pixels[row, column], image[row, column], atol=12)


def test_a_thumbnail_of_a_picture(picture_file: Path) -> None:
    assert thumbnail(picture_file, 25).size == (25, 15)
    with pytest.raises(InvalidInput, match="side is 0"):
        thumbnail(picture_file, 0)


def test_a_thumbnail_from_a_level_too_large_is_refused(tmp_path: Path, colours: Colours) -> None:
    tifffile.imwrite(tmp_path / "flat.tif", colours(300, 300), photometric="rgb", tile=(64, 64))
    with pytest.raises(UnsafeFile, match="300 x 300 pixels in the level"):
        thumbnail(tmp_path / "flat.tif", 20, Limits(max_pixels=10_000))


def test_pictures_are_read_without_openslide_and_slides_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, write_slide: WriteSlide, colours: Colours, picture_file: Path
) -> None:
    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "openslide":
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **options)

    path, original = write_slide(colours(20, 20)), builtins.__import__
    monkeypatch.setattr(builtins, "__import__", importing)
    with open_slide(picture_file) as slide:
        assert slide.height == 30
    with pytest.raises(InvalidInput, match=r"pip install 'medphantom\[slide\]'"):
        open_slide(path)
