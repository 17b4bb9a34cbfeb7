"""A field of embeddings: what an image shall look like at every place of it.

Graikos et al. 2024 (arXiv 2312.07330, section 3.3) interpolate a grid of embeddings on the sphere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput

NEARLY_PARALLEL = 0.9995  # cosine from where on an arc is a line


def slerp(first: Tensor, second: Tensor, fraction: Tensor) -> Tensor:
    """The point at `fraction` (N,) of the arc from `first` to `second`, (N, D) of unit length.

    Nearly parallel or opposite vectors, whose arc is short or undefined, are mixed on the line;
    halfway between opposite ones, where that passes through zero, it is the first.
    """
    cosine = (first * second).sum(-1, keepdim=True).clamp(-1, 1)
    angle = cosine.arccos()
    fraction = fraction.unsqueeze(-1)
    straight = cosine.abs() > NEARLY_PARALLEL
    sine = torch.where(straight, torch.ones_like(angle), angle.sin())
    arc = (((1 - fraction) * angle).sin() * first + (fraction * angle).sin() * second) / sine
    line = (1 - fraction) * first + fraction * second
    point = torch.where(straight, line, arc)
    return F.normalize(torch.where(point.norm(dim=-1, keepdim=True) > 1e-6, point, first), dim=-1)


@dataclass(frozen=True)
class EmbeddingField:
    """A grid of embeddings (rows, cols, D), [0, 0] top left, and the places between them.

    Entry [i, j] is what shall be seen around the pixel ((i + 0.5) * pitch_y, (j + 0.5) * pitch_x).
    The paper reads the same field by the upper left corners of its windows, which agrees where the
    pitch is a window, but puts a finer or coarser grid in the wrong place.

    Args:
        grid: of any length but zero; made unit length.
        pitch: pixels between neighbours, (y, x).
        covered: (height, width) in pixels of the image that the field is of, whose last rows and
            columns of entries may reach beyond it; None is all that the grid covers.
    """

    grid: Tensor
    pitch: tuple[float, float]
    covered: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.grid.ndim != 3 or not all(self.grid.shape):
            raise InvalidInput(
                f"embeddings have the shape {tuple(self.grid.shape)}, but must be (rows, columns,"
                " dimension), none of them zero"
            )
        if not min(self.pitch) > 0:
            raise InvalidInput(f"pitch is {self.pitch}, but must be positive numbers of pixels")
        lengths = self.grid.norm(dim=-1, keepdim=True)
        if not (lengths.isfinite() & (lengths > 0)).all():
            raise InvalidInput("embeddings hold zeros, NaN or infinity, which have no direction")
        object.__setattr__(self, "grid", (self.grid / lengths).float())

    @property
    def dim(self) -> int:
        """D."""
        return self.grid.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the image that the field is of."""
        if self.covered is not None:
            return self.covered
        rows, columns, _ = self.grid.shape
        return round(rows * self.pitch[0]), round(columns * self.pitch[1])

    def check_dim(self, dim: int) -> None:
        """Raise InvalidInput unless the embeddings are those of the model's encoder."""
        if self.dim != dim:
            raise InvalidInput(
                f"embeddings have {self.dim} dimensions, but the model was trained with {dim}; use"
                " its own encoder"
            )

    def stretched(self, height: int, width: int) -> "EmbeddingField":
        """The same layout over an image of another size."""
        own_height, own_width = self.size
        pitch = self.pitch[0] * height / own_height, self.pitch[1] * width / own_width
        return EmbeddingField(self.grid, pitch, (height, width))

    def at(self, centres: Tensor) -> Tensor:
        """Embeddings (N, D) at pixels (N, 2), (y, x); beyond the outer entries, those entries."""
        places = centres.to(self.grid) / torch.tensor(self.pitch).to(self.grid) - 0.5
        last = torch.tensor(self.grid.shape[:2], device=self.grid.device) - 1
        places = places.clamp_min(0).minimum(last.to(places))
        low = places.floor().long()
        high = (low + 1).minimum(last)
        fraction = places - low
        top = slerp(
            self.grid[low[:, 0], low[:, 1]], self.grid[low[:, 0], high[:, 1]], fraction[:, 1]
        )
        bottom = slerp(
            self.grid[high[:, 0], low[:, 1]], self.grid[high[:, 0], high[:, 1]], fraction[:, 1]
        )
        return slerp(top, bottom, fraction[:, 0])
