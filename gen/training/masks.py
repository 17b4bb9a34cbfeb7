"""Random masks at latent resolution: what an inpainting model learns to paint.

A mask (h, w) is 1 where latents are painted and 0 where they are kept.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

BLOB_CELLS = (2, 7)  # a side of the coarse noise whose smooth version is cut into blobs
BLOB_AREA = (0.05, 0.75)  # of the image
GRID_CELLS = (2, 9)  # patches a side
GRID_SHARE = (0.1, 0.9)  # of the patches


class MaskShares(BaseModel):
    """How often each shape is drawn, relative to the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rectangle: float = Field(0.35, ge=0, description="A box around a lesion, or a large part")
    blob: float = Field(0.3, ge=0, description="Smooth outlines, as of a segmentation")
    grid: float = Field(0.25, ge=0, description="Some patches of a grid, as anomaly maps paint")
    everything: float = Field(
        0.1, ge=0, description="Nothing is kept: the model stays one of text alone"
    )

    @model_validator(mode="after")
    def _some_shape(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all shares are 0; give one shape at least a share above 0")
        return self


def draw_masks(
    shares: MaskShares, count: int, size: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Masks (count, 1, h, w) of the size (h, w), each of which paints a cell at least."""
    height, width = size
    weights = torch.tensor([getattr(shares, name) for name in SHAPES])
    chosen = torch.multinomial(weights, count, True, generator=generator).tolist()
    shapes = list(SHAPES.values())
    masks = [shapes[number](height, width, generator) for number in chosen]
    return torch.stack(masks)[:, None]


def rectangle(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Of sides from one cell to all of them, anywhere within."""
    mask = torch.zeros(height, width)
    top, bottom = _span(height, generator)
    left, right = _span(width, generator)
    mask[top:bottom, left:right] = 1
    return mask


def blob(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Where smooth noise is high."""
    side = _between(BLOB_CELLS, generator)
    coarse = torch.randn(1, 1, side, side, generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0]
    area = _uniform(BLOB_AREA, generator)
    return (field >= field.quantile(1 - area)).float()


def grid(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Some patches of a grid."""
    side = min(_between(GRID_CELLS, generator), height, width)
    painted = torch.rand(side, side, generator=generator) < _uniform(GRID_SHARE, generator)
    painted[_between((0, side), generator), _between((0, side), generator)] = True
    return F.interpolate(painted[None, None].float(), (height, width))[0, 0]


def everything(height: int, width: int, generator: torch.Generator) -> Tensor:
    """All cells."""
    return torch.ones(height, width)


def _span(whole: int, generator: torch.Generator) -> tuple[int, int]:
    length = _between((1, whole + 1), generator)
    start = _between((0, whole - length + 1), generator)
    return start, start + length


def _between(bounds: tuple[int, int], generator: torch.Generator) -> int:
    return int(torch.randint(*bounds, (), generator=generator))


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


SHAPES: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "rectangle": rectangle,
    "blob": blob,
    "grid": grid,
    "everything": everything,
}
