"""A Deep Zoom image is whole and where viewers look for it, or it is not there."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from gen.data.deep_zoom import write_deep_zoom
from gen.errors import InvalidInput, UnsafeFile

Colours = Callable[[int, int], NDArray[np.uint8]]
WriteSlide = Callable[..., Path]


def test_every_level_is_there_and_the_largest_is_the_image(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    image = colours(300, 700)
    folder = write_deep_zoom(write_slide(image), tmp_path / "x.dzi")
    size = ElementTree.parse(tmp_path / "x.dzi").getroot()[0]
    assert (size.get("Height"), size.get("Width")) == ("300", "700")
    assert folder == tmp_path / "x_files"
    assert {int(path.name) for path in folder.iterdir()} == set(range(11))  # 700 <= 2^10
    assert len(list((folder / "10").iterdir())) == 2 * 3
    with Image.open(folder / "10" / "2_1.jpeg") as tile:
        assert tile.size == (700 - 2 * 254 + 1, 300 - 254 + 1)  # one pixel of overlap
        np.testing.assert_allclose(np.asarray(tile)[-1, -1], image[-1, -1], atol=12)
    with Image.open(folder / "0" / "0_0.jpeg") as tile:
        assert tile.size == (1, 1)


def test_a_picture_becomes_a_deep_zoom_image_too(tmp_path: Path, picture_file: Path) -> None:
    folder = write_deep_zoom(picture_file, tmp_path / "x.dzi")
    with Image.open(folder / "6" / "0_0.jpeg") as tile:
        assert tile.size == (50, 30)


def test_nothing_is_overwritten(tmp_path: Path, picture_file: Path) -> None:
    (tmp_path / "x_files").mkdir()
    with pytest.raises(InvalidInput, match="x_files exists and is not overwritten"):
        write_deep_zoom(picture_file, tmp_path / "x.dzi")
    (tmp_path / "y.dzi").touch()
    with pytest.raises(InvalidInput, match=r"y\.dzi exists"):
        write_deep_zoom(picture_file, tmp_path / "y.dzi")
    with pytest.raises(InvalidInput, match=r"ends in \.dzi"):
        write_deep_zoom(picture_file, tmp_path / "x.html")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_one_leaves_nothing(
    tmp_path: Path,
    picture_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    expected = InvalidInput if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_deep_zoom(picture_file, tmp_path / "x.dzi")
    assert list(tmp_path.iterdir()) == [picture_file]


def test_a_description_that_cannot_be_written_takes_the_tiles_with_it(
    tmp_path: Path, picture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeepZoomGenerator, "get_dzi", fail)
    with pytest.raises(InvalidInput, match="No space left on device; free some space"):
        write_deep_zoom(picture_file, tmp_path / "x.dzi")
    assert list(tmp_path.iterdir()) == [picture_file]


def test_what_is_no_slide_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_bytes(b"no slide")
    with pytest.raises(UnsafeFile, match="starts with b'no s'"):
        write_deep_zoom(tmp_path / "x.svs", tmp_path / "x.dzi")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svs"]
