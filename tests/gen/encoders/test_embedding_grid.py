"""A grid of embeddings keeps the layout of its picture, at any size, in little memory."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.encoders import encoder as encoder_module
from gen.encoders.encoder import Encoder
from gen.encoders.windows import ReadPixels, grid_shape, windows_around
from gen.errors import InvalidInput

lengths = st.integers(1, 30)


def means(images: Tensor) -> Tensor:
    return images.mean((2, 3))


ENCODER = Encoder("means@1", 8, 8, means, "cpu", 3)


def reader(pixels: NDArray[np.uint8]) -> ReadPixels:
    """Reads, and fails on pixels that are not there."""

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        assert min(top, left) >= 0
        assert min(height, width) >= 1
        assert top + height <= pixels.shape[0]
        assert left + width <= pixels.shape[1]
        return pixels[top : top + height, left : left + width]

    return read


def places(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose red is y, green is x, and blue is 100."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(y, 100)], -1).astype(np.uint8)


def test_each_entry_is_of_the_window_around_its_point() -> None:
    grid = ENCODER.embed_grid(reader(places(40, 120)), 40, 120, pitch=8, field=4)
    assert grid.shape == (5, 15, 3)
    found = grid / grid[..., 2:] * 100  # a window's mean is where its middle is
    y, x = np.mgrid[:5, :15]
    assert np.allclose(found[..., 0], (y + 0.5) * 8 - 0.5, atol=1e-3)
    assert np.allclose(found[..., 1], (x + 0.5) * 8 - 0.5, atol=1e-3)
    assert torch.allclose(grid.norm(dim=-1), torch.ones(5, 15))


def test_four_corners_that_differ_stay_in_their_corners() -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, 24:, 0] = pixels[16:, :24, 1] = pixels[16:, 24:, 2] = pixels[:16, :24] = 200
    grid = ENCODER.embed_grid(reader(pixels), 32, 48, pitch=16, field=8)
    corners = torch.stack([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]])
    expected = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert torch.allclose(corners, F.normalize(expected, dim=1), atol=1e-5)


def test_an_entry_is_what_embedding_its_window_alone_gives() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    grid = ENCODER.embed_grid(reader(pixels), 64, 64, pitch=16, field=32)
    window = torch.from_numpy(pixels[24:56, 8:40]).movedim(-1, 0)[None] / 127.5 - 1
    assert torch.allclose(grid[2, 1], ENCODER.embed(window)[0], atol=1e-6)


def test_a_grey_picture_may_come_without_channels() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, size=(16, 24), dtype=np.uint8)
    grid = ENCODER.embed_grid(reader(pixels), 16, 24, pitch=8, field=8)
    assert torch.allclose(grid, torch.full((2, 3, 3), 3**-0.5), atol=1e-5)


def test_the_grid_does_not_depend_on_how_many_windows_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    grids = []
    for budget in (1, 300, 2**20):
        monkeypatch.setattr(encoder_module, "_BATCH_PIXELS", budget)
        grids.append(ENCODER.embed_grid(reader(pixels), 50, 70, pitch=12.5, field=9))
    assert grids[0].shape == (4, 6, 3)
    assert torch.allclose(grids[0], grids[1], atol=1e-6)
    assert torch.allclose(grids[0], grids[2], atol=1e-6)


@pytest.mark.parametrize(("pitch", "field"), [(10, 9), (10, 40), (50, 9)])
def test_no_more_is_read_at_once_than_a_batch(
    monkeypatch: pytest.MonkeyPatch, pitch: int, field: int
) -> None:
    monkeypatch.setattr("gen.reference_field.PIXELS_A_CALL", 4096)
    read, sizes = reader(np.full((100, 2000, 3), 50, np.uint8)), []

    def watched(top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        sizes.append(height * width)
        return read(top, left, height, width)

    assert ENCODER.embed_grid(watched, 100, 2000, pitch, field).shape[1] == 2000 / pitch
    assert max(sizes) <= 4096


@settings(deadline=None)
@given(lengths, lengths, st.floats(1.5, 20), st.integers(1, 70), st.integers(1, 5))
def test_windows_are_those_of_the_mirrored_picture(
    height: int, width: int, pitch: float, field: int, count: int
) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    rows, cols = grid_shape(height, width, pitch)
    batches = list(windows_around(reader(pixels), height, width, pitch, field, count))
    windows = np.concatenate(batches)
    assert max(len(batch) for batch in batches) <= count
    assert windows.shape == (rows * cols, field, field, 3)
    margin = field + 20
    mirrored = np.pad(pixels, [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
    for row, col in {(0, 0), (rows - 1, 0), (rows // 2, cols - 1)}:
        top, left = (
            margin + int(np.floor((index + 0.5) * pitch - field / 2)) for index in (row, col)
        )
        expected = mirrored[top : top + field, left : left + field]
        assert np.array_equal(windows[row * cols + col], expected)


@given(lengths, lengths, st.floats(0.5, 40))
@example(21, 21, 1.4)
def test_the_grid_covers_its_picture_and_no_row_more(height: int, width: int, pitch: float) -> None:
    rows, cols = grid_shape(height, width, pitch)
    assert rows * pitch + 1e-6 >= height > (rows - 1) * pitch
    assert cols * pitch + 1e-6 >= width > (cols - 1) * pitch


@pytest.mark.parametrize("name", ["height", "width", "pitch", "field"])
@pytest.mark.parametrize("value", [0, -3])
def test_lengths_that_make_no_grid_are_named(name: str, value: int) -> None:
    sizes = {"height": 8, "width": 8, "pitch": 4, "field": 4, name: value}
    with pytest.raises(InvalidInput, match=f"{name} is {value}, but must be a positive number"):
        ENCODER.embed_grid(reader(places(8, 8)), **sizes)


def test_a_pitch_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidInput, match="pitch is nan"):
        ENCODER.embed_grid(reader(places(8, 8)), 8, 8, float("nan"), 4)
