"""How windows should lie, where the answer is known: stationary Gaussian textures.

The denoiser of a window of a Gaussian is a matrix, and so is all that a deterministic sampler does
with a canvas. Its columns are what becomes of the unit vectors, here a channel of the canvas each;
times its transpose it is the covariance of what the sampler draws.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.data.canvas import new_canvas
from gen.denoising import fresh_scheduler, scheduler_named
from gen.engine import run
from gen.large_canvas import denoise_canvas
from gen.tiling import Layout, bell, overlapping, shifted
from gen.types import ModelCall, Process

SIDE, LENGTH, STEPS = 16, 64, 15
CONFIG = {
    "beta_start": 0.0015,
    "beta_end": 0.0205,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
    "prediction_type": "sample",
}


def covariance(length: int) -> Tensor:
    """Of a texture of fine grain, coarse waves and a little noise."""
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    fine, coarse = torch.exp(-distance / 2), torch.exp(-((distance / 8) ** 2))
    return 0.5 * fine + 0.45 * coarse + 0.05 * torch.eye(length)


def drawn(layouts: list[Layout], weights: Tensor, folder: Path) -> Tensor:
    """Covariance (L, L) along a row of what DDIM draws in these windows."""
    scheduler: Any = fresh_scheduler(scheduler_named("ddim", CONFIG), STEPS)
    side = layouts[0].side
    prior = covariance(side)

    def predict(latents: Tensor, timestep: Tensor, centres: Tensor) -> Process[Tensor]:
        alpha = scheduler.alphas_cumprod[int(timestep)]
        noisy = alpha * prior + (1 - alpha) * torch.eye(side)
        matrix = torch.linalg.solve(noisy, alpha.sqrt() * prior)  # of the mean of x0
        return (yield ModelCall("unet", (latents @ matrix,)))

    with new_canvas(folder, LENGTH, side, LENGTH) as canvas:
        canvas.write(0, torch.eye(LENGTH)[:, None].expand(-1, side, -1))
        process = denoise_canvas(
            canvas, scheduler, predict, layouts, weights, torch.Generator(), folder
        )
        run(process, {"unet": lambda latents: latents})
        matrix = canvas.read(0, side)[:, side // 2]  # (unit vectors, places)
    return matrix.T @ matrix


def frechet(first: Tensor, second: Tensor) -> float:
    """Squared Fréchet distance of two centred Gaussians."""
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    crossed = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(first.trace() + second.trace() - 2 * crossed)


def crop_distance(drawn: Tensor) -> float:
    """Mean Fréchet distance of crops of a window from the true texture."""
    crops = [drawn[k : k + SIDE, k : k + SIDE] for k in range(0, LENGTH - SIDE + 1, 4)]
    return sum(frechet(covariance(SIDE), crop) for crop in crops) / len(crops)


def edge_energy(drawn: Tensor) -> Tensor:
    """Expected squared difference (L - 1,) of neighbours."""
    diagonal = drawn.diagonal()
    return diagonal[1:] + diagonal[:-1] - 2 * drawn.diagonal(1)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Windows every quarter of a window, of equal weight."""
    layout = overlapping(SIDE, LENGTH, SIDE, SIDE // 4)
    return drawn([layout] * STEPS, torch.ones(SIDE, SIDE), tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Crop distance by a window as large as the canvas: what the steps alone cost."""
    layout = Layout((0,), (0,), LENGTH)
    folder = tmp_path_factory.mktemp("ideal")
    return crop_distance(drawn([layout] * STEPS, torch.ones(LENGTH, LENGTH), folder))


@pytest.mark.parametrize("seed", range(3))
def test_shifted_windows_lose_less_than_half_of_what_the_papers_lose(
    paper: Tensor, ideal: float, seed: int, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(seed)
    layouts = shifted(SIDE, LENGTH, SIDE, SIDE // 4, STEPS, generator)
    ours = drawn(layouts, bell(SIDE), tmp_path)
    assert crop_distance(ours) - ideal < 0.5 * (crop_distance(paper) - ideal)
    calls = sum(layout.num_windows for layout in layouts) / STEPS
    assert calls < 0.5 * overlapping(SIDE, LENGTH, SIDE, SIDE // 4).num_windows  # each way


def test_shifted_windows_leave_no_seam_and_the_papers_do(paper: Tensor, tmp_path: Path) -> None:
    layouts = shifted(SIDE, LENGTH, SIDE, SIDE // 4, STEPS, torch.Generator().manual_seed(0))
    ours = edge_energy(drawn(layouts, bell(SIDE), tmp_path))
    assert ours.max() < 1.05 * ours.median()
    theirs = edge_energy(paper)
    assert theirs.max() > 1.1 * theirs.median()


def test_without_feathered_edges_shifts_alone_leave_seams(tmp_path: Path) -> None:
    layouts = shifted(SIDE, LENGTH, SIDE, 0, STEPS, torch.Generator().manual_seed(0))
    energy = edge_energy(drawn(layouts, torch.ones(SIDE, SIDE), tmp_path))
    assert energy.max() > 1.1 * energy.median()
