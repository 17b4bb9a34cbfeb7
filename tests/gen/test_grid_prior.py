"""Grids of embeddings from words: those of plain sampling, of any size, of unit length."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gen.denoising import denoise, fresh_scheduler, scheduler_named
from gen.engine import run
from gen.grid_prior import draw_grid
from gen.guidance.classifier_free import classifier_free
from gen.types import ModelCall, Process

SIDE, DIM = 4, 6
CONFIG = {"beta_schedule": "scaled_linear", "beta_end": 0.0205, "timestep_spacing": "trailing"}
STATES = torch.randn(2, 1, 5, DIM, generator=torch.Generator().manual_seed(0))


def network(grids: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
    """Local, and not linear in anything."""
    return torch.tanh(grids + states.mean(dim=1)[:, :, None, None]) * timesteps[0] / 1000


def drawn(size: tuple[int, int], folder: Path, name: str = "dpm++", scale: float = 3.0) -> Tensor:
    scheduler: Any = fresh_scheduler(scheduler_named(name, CONFIG), 6)
    generator = torch.Generator().manual_seed(3)
    process = draw_grid(*STATES, size, SIDE, DIM, scheduler, scale, generator, folder)
    return run(process, {"prior": network})


def by_denoise(size: tuple[int, int], name: str = "dpm++", scale: float = 3.0) -> Tensor:
    """The whole grid at once, from the same noise."""
    scheduler = fresh_scheduler(scheduler_named(name, CONFIG), 6)
    generator = torch.Generator().manual_seed(3)
    torch.rand(2, 1, generator=generator, dtype=torch.float64)  # where windows start
    rows = [min(SIDE, size[0] - top) for top in range(0, size[0], SIDE)]
    bands = [torch.randn(DIM, count, size[1], generator=generator) for count in rows]
    noise = torch.cat(bands, dim=1)[None] * scheduler.init_noise_sigma

    def prior(grids: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
        return (yield ModelCall("prior", (grids, timestep.expand(len(grids)), condition)))

    guided = classifier_free(prior, *STATES, scale)
    grid = run(denoise(noise, scheduler, guided, [generator]), {"prior": network})
    return F.normalize(grid[0].movedim(0, -1), dim=-1)


@pytest.mark.parametrize("name", ["dpm++", "ddim", "heun"])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (9, 7)])
def test_of_a_local_prior_windows_draw_what_plain_sampling_draws(
    size: tuple[int, int], name: str, tmp_path: Path
) -> None:
    grid = drawn(size, tmp_path, name)
    assert grid.shape == (*size, DIM)
    assert torch.allclose(grid, by_denoise(size, name), atol=1e-4)


def test_a_grid_smaller_than_the_priors_is_cut_out_of_one(tmp_path: Path) -> None:
    assert torch.allclose(drawn((2, 3), tmp_path), by_denoise((SIDE, SIDE))[:2, :3], atol=1e-4)


def test_places_have_unit_length(tmp_path: Path) -> None:
    assert torch.allclose(drawn((9, 7), tmp_path).norm(dim=-1), torch.ones(9, 7))


def test_guidance_moves_away_from_no_words(tmp_path: Path) -> None:
    first, second = (drawn((SIDE, SIDE), tmp_path, scale=scale) for scale in (1.0, 3.0))
    assert not torch.allclose(first, second, atol=1e-3)
