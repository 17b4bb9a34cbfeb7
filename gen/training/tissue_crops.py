"""Patches of tissue drawn as the patch model's training draws them, that say where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.training.dataset import to_unit
from gen.training.tissue import Tiles, row_weights


@dataclass(frozen=True)
class TissueCrop:
    """A square of a file at a magnification.

    `x` and `y` are of its upper left pixel in the file at that magnification, negative where the
    file was mirrored; `tile`, `top` and `left` say where it lies among the tiles.
    """

    file: str
    x: int
    y: int
    microns_per_pixel: float
    tile: int
    top: int
    left: int

    @property
    def name(self) -> str:
        """No other crop of that size has it."""
        return f"{self.file} {self.microns_per_pixel:g} {self.x},{self.y}"


def draw_crops(
    tiles: Tiles, balance: float, size: int, count: int, seed: int = 0
) -> list[TissueCrop]:
    """Crops of `size` pixels, all different: `count`, or fewer where some are drawn twice.

    They lie as those that training cuts, but are not turned: tissue has no upright.

    Args:
        balance: see `gen.training.tissue.TilesConfig`.

    Raises:
        InvalidInput: tiles are smaller than crops.
    """
    room = tiles.images.shape[-1] - size + 1
    if room < 1:
        raise InvalidInput(
            f"tile_size is {tiles.images.shape[-1]}, but patches are {size} pixels a side; name the"
            " recipe that the model was trained by"
        )
    generator = torch.Generator().manual_seed(seed)
    weights = row_weights(tiles.microns_per_pixel, balance)
    rows = torch.multinomial(weights, count, True, generator=generator).tolist()
    corners = torch.randint(room, (count, 2), generator=generator).tolist()
    crops = [_crop(tiles, row, *corner) for row, corner in zip(rows, corners, strict=True)]
    return list({crop.name: crop for crop in crops}.values())


def _crop(tiles: Tiles, row: int, top: int, left: int) -> TissueCrop:
    y, x = tiles.corners[row]
    # to six digits: single precision knows no 0.35
    scale = float(f"{tiles.microns_per_pixel[row]:.6g}")
    return TissueCrop(tiles.fields[row]["file"], x + left, y + top, scale, row, top, left)


def pixels_of(tiles: Tiles, crops: Sequence[TissueCrop], size: int) -> Tensor:
    """(N, 3, size, size) in [-1, 1]."""
    picked = [tiles.images[c.tile, :, c.top : c.top + size, c.left : c.left + size] for c in crops]
    return to_unit(torch.stack(picked))
