"""Copies of training tiles are found wherever they begin and however they are turned."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics.structure import factor_of, orientations, structure
from gen.metrics.tile_copies import (
    TileIndex,
    Windows,
    index_tiles,
    match_places,
    match_windows,
    places_of,
)
from gen.metrics.tile_planted import ALTERATIONS, laid_over, planted_recall, random_windows
from gen.metrics.views import View, to_tensor

TILE = 32


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random pixels (height, width, 3) of a colour that changes slowly."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.normal(size=(height, width)), 1.5)
    colour = gaussian_filter(rng.normal(size=(height, width, 3)), (9, 9, 0))
    pixels = 128 + 30 * fine[..., None] / fine.std() + 30 * colour / colour.std()
    return np.clip(pixels, 0, 255).astype(np.uint8)


def view(pixels: NDArray[np.uint8], name: str = "a") -> View:
    height, width = pixels.shape[:2]

    def read(top: int, left: int, rows: int, columns: int) -> NDArray[np.uint8]:
        assert 0 <= top < top + rows <= height
        assert 0 <= left < left + columns <= width
        return pixels[top : top + rows, left : left + columns].copy()

    return View(name, height, width, read)


def network(images: Tensor) -> Tensor:
    """Mean colour and how it falls off from the middle: the same in all positions of a square."""
    rings = F.adaptive_avg_pool2d(images, 4)
    return torch.cat([rings.mean((2, 3)), rings[..., 1:3, 1:3].mean((2, 3)), images.std((2, 3))], 1)


ENCODER = Encoder("rings", TILE, TILE, network, "cpu", 3)
TRAIN = [texture(100, 120, seed) for seed in range(3)]
VIEWS = [view(pixels, f"t{i}") for i, pixels in enumerate(TRAIN)]


@pytest.fixture(scope="module")
def index() -> TileIndex:
    return index_tiles(VIEWS, ENCODER, TILE)


def test_every_place_of_a_training_image_is_a_copy_of_itself(index: TileIndex) -> None:
    assert len(places_of(VIEWS[1], TILE)) == 4 * 4
    places = [(0, 0), (32, 64), (68, 88)]
    found = match_places(VIEWS[1], places, index, ENCODER)
    assert found.scores.min() > 0.95
    assert (index.images[found.rows] == 1).all()
    apart = index.corners[found.rows].numpy() - found.corners
    assert np.abs(apart).max() <= TILE // 4  # neighbours see most of it too


def test_its_own_pixels_can_be_barred(index: TileIndex) -> None:
    places = [(0, 0), (32, 64), (68, 88)]
    found = match_places(VIEWS[1], places, index, ENCODER, own=1)
    assert found.scores.max() < 0.8
    for row, corner in zip(found.rows, found.corners, strict=True):
        apart = np.abs(index.corners[row].numpy() - corner).max()
        assert index.images[row] != 1 or apart >= TILE


@pytest.mark.parametrize("turn", range(8))
def test_a_copy_is_found_in_any_position_and_at_any_offset(index: TileIndex, turn: int) -> None:
    image = texture(100, 100, 9)
    copied = np.rot90(TRAIN[2][37:72, 51:86], turn % 4)
    image[45:80, 19:54] = copied[:, ::-1] if turn > 3 else copied
    found = match_places(view(image), [(32, 0)], index, ENCODER)
    assert found.scores[0] > 0.8
    assert index.images[found.rows[0]] == 2
    assert (abs(index.corners[found.rows[0]] - torch.tensor([37, 51])) <= TILE // 2).all()
    assert (abs(found.corners[0] - np.array([45, 19])) <= TILE // 8 + 3).all()


def test_a_stain_does_not_hide_a_copy_and_no_copy_is_none(index: TileIndex) -> None:
    place = [(32, 32)]
    stained = view((TRAIN[0] * (0.6, 0.8, 0.7) + 40).astype(np.uint8))
    unseen = view(texture(100, 100, 8))
    # candidates by an encoder that sees nothing
    blind = Encoder("blind", TILE, TILE, lambda x: torch.ones(len(x), 2), "cpu", 3)
    all_alike = index_tiles(VIEWS[:1], blind, TILE)
    scores = [match_places(each, place, all_alike, blind).scores[0] for each in (stained, unseen)]
    assert scores[0] > 0.95
    assert scores[1] < 0.8


def test_glass_is_neither_a_copy_nor_looked_at(index: TileIndex) -> None:
    glass = np.full((100, 100, 3), 240, np.uint8)
    assert not len(match_places(view(glass), places_of(view(glass), TILE), index, ENCODER).scores)
    half = texture(64, 64, 5)
    half[:, 32:] = 240
    alone = index_tiles([view(half)], ENCODER, TILE)
    assert alone.corners[:, 1].max() < 32
    with pytest.raises(InvalidInput, match="none of 1 training images shows tissue"):
        index_tiles([view(glass)], ENCODER, TILE)
    with pytest.raises(InvalidInput, match="as large"):
        index_tiles([view(texture(20, 90, 0))], ENCODER, TILE)


def test_where_all_is_barred_nothing_is_found(index: TileIndex) -> None:
    pixels = TRAIN[0][None, :TILE, :TILE]
    windows = Windows(to_tensor(pixels), structure(pixels[0], factor_of(TILE))[None])
    barred = torch.ones(1, len(index.embeddings), dtype=torch.bool)
    assert match_windows(windows, index, ENCODER, barred) == ([-1.0], [-1])


def test_structure_knows_no_contrast_and_the_eight_positions_are_all() -> None:
    pixels = texture(64, 64, 0)
    plain, faint = (structure(each, 1) for each in (pixels, pixels // 2 + 60))
    assert np.corrcoef(plain.flatten(), faint.flatten())[0, 1] > 0.99
    assert float(plain.std() / faint.std()) == pytest.approx(1, abs=0.05)
    square = torch.arange(9.0).reshape(1, 3, 3)
    turned = {tuple(each.flatten().tolist()) for pair in orientations(square) for each in pair[0]}
    assert len(turned) == 8


def test_planted_copies_are_found_if_they_are_not_altered_beyond_recognition(
    index: TileIndex,
) -> None:
    images = [view(texture(100, 100, 8))]
    seen: list[tuple[int, int]] = []
    recall = planted_recall(
        VIEWS, images, index, ENCODER, 0.6, 12, report=lambda *done: seen.append(done)
    )
    assert set(recall) == set(ALTERATIONS)
    assert recall["none"].flagged.value > 0.7
    assert recall["none"].of.value > 0.7
    assert recall["none"].of.value >= recall["everything"].of.value
    assert seen[-1] == (12 * len(ALTERATIONS),) * 2
    nothing = planted_recall(VIEWS, images, index, ENCODER, 1.0, 4)
    assert nothing["none"].flagged.value == 0


def test_a_planted_tile_covers_most_of_a_window_and_is_all_there() -> None:
    windows = torch.zeros(20, 3, TILE, TILE, dtype=torch.uint8)
    tiles = torch.full_like(windows, 255)
    share = (laid_over(windows, tiles, np.random.default_rng(0)) > 0).float().mean((1, 2, 3))
    assert share.min() >= (7 / 8) ** 2
    assert share.unique().numel() > 5
    assert not windows.any()


def test_windows_are_drawn_from_tissue_only() -> None:
    half = texture(64, 128, 5)
    half[:, 64:] = 240
    windows, places = random_windows([view(half)], TILE, 20, np.random.default_rng(0))
    assert all(left < 64 for _, _, left in places)
    for window, (_, top, left) in zip(windows, places, strict=True):
        assert np.array_equal(window, half[top : top + TILE, left : left + TILE])
    with pytest.raises(InvalidInput, match="next to no tissue"):
        random_windows([view(half[:, 64:])], TILE, 2, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="side is 65"):
        random_windows([view(half)], 65, 2, np.random.default_rng(0))
