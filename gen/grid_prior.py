"""Grids of embeddings from words, of any size: the prior's sampling process."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.data.canvas import new_canvas
from gen.guidance.classifier_free import classifier_free
from gen.large_canvas import denoise_canvas, draw_canvas_noise
from gen.tiling import bell, shifted
from gen.types import ModelCall, Process


def draw_grid(
    states: Tensor,
    null: Tensor,
    size: tuple[int, int],
    side: int,
    dim: int,
    scheduler: Any,
    guidance_scale: float,
    generator: torch.Generator,
    folder: Path,
) -> Process[Tensor]:
    """A grid of unit-length embeddings (rows, cols, dim) as a text describes it.

    Larger grids than the prior's own `side` are drawn as large images are, in shifted windows.

    Args:
        states, null: (1, L, D) of the text and of no text; on the prior's device, in its type.
        size: (rows, cols).
        side: of the grids that the prior was trained on.
        dim: of an embedding.
        scheduler: a fresh one.
        guidance_scale: 1.0 = off.
        generator: of the noise.
        folder: for temporary files.
    """
    cells = max(side, size[0]), max(side, size[1])
    layouts = shifted(*cells, side, side // 2, len(scheduler.timesteps), generator)

    def prior(grids: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
        timesteps = timestep.to(grids.device).expand(len(grids))
        return (yield ModelCall("prior", (grids, timesteps, condition)))

    def predict(grids: Tensor, timestep: Tensor, centres: Tensor) -> Process[Tensor]:
        condition = states.expand(len(grids), -1, -1)
        guided = classifier_free(prior, condition, null, guidance_scale)
        return (yield from guided(grids, timestep))

    with new_canvas(folder, dim, *cells) as canvas:
        draw_canvas_noise(canvas, side, float(scheduler.init_noise_sigma), generator)
        yield from denoise_canvas(
            canvas,
            scheduler,
            predict,
            layouts,
            bell(side),
            generator,
            folder,
            states.device,
            states.dtype,
        )
        grid = canvas.read(0, cells[0])[:, : size[0], : size[1]]
    return F.normalize(grid.movedim(0, -1), dim=-1)
