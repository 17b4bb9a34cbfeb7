"""What a large image will roughly be, while it forms: its clean latents in small."""

from typing import Any

import torch
from torch import Tensor

from gen.types import ModelCall, Process

LONGEST_SIDE = 64  # cells of the latents of an overview: a few windows' worth of decoding


class Overview:
    """A canvas in small: each cell is the mean of what windows last estimated there.

    Args:
        cells: (height, width) of the canvas.
        channels: of the latents.

    Attributes:
        latents: (1, C, h, w), neither side above `LONGEST_SIDE`; zeros where no window was yet.
    """

    def __init__(self, cells: tuple[int, int], channels: int) -> None:
        self._factor = max(1, -(-max(cells) // LONGEST_SIDE))
        height, width = (-(-side // self._factor) for side in cells)
        self.latents = torch.zeros(1, channels, height, width)

    def add(self, windows: Tensor, centres: Tensor) -> None:
        """Note clean latents (N, C, s, s) of windows around `centres` (N, 2) in cells, (y, x)."""
        side, width = windows.shape[-1], self.latents.shape[-1]
        starts = (centres - side / 2).round().long()
        ys, xs = ((starts[:, axis, None] + torch.arange(side)) // self._factor for axis in (0, 1))
        places = (ys[:, :, None] * width + xs[:, None, :]).flatten()
        values = windows.float().cpu().movedim(1, 0).flatten(1)
        flat = self.latents[0].flatten(1)  # a view
        sums = torch.zeros_like(flat).index_add_(1, places, values)
        counts = torch.bincount(places, minlength=flat.shape[1])
        seen = counts > 0
        flat[:, seen] = sums[:, seen] / counts[seen]


def decode_overview(latents: Tensor, vae: Any) -> Process[Tensor]:
    """Pixels (1, 3, H, W) in [0, 1] of an overview's latents; detail below its cells is lost."""
    scaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    pixels = yield ModelCall("decoder", (scaled,))
    return (pixels.float().clamp(-1, 1) / 2 + 0.5).expand(-1, 3, -1, -1)
