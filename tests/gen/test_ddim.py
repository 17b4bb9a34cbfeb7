"""Stochastic DDIM: the variance of strided steps, and that of a released implementation."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from gen.ddim import StochasticDDIMScheduler
from gen.denoising import denoise, fresh_scheduler, make_generators
from gen.engine import run
from gen.types import ModelCall, Process

BETAS = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
ABAR = (1 - BETAS).cumprod(0)


def test_legacy_variance_is_the_single_steps_beta_in_a_strided_place() -> None:
    legacy = StochasticDDIMScheduler(legacy_variance=True)
    t, before = 500, 480
    expected = BETAS[t] * (1 - ABAR[before]) / (1 - ABAR[t])
    assert float(legacy._get_variance(t, before)) == pytest.approx(float(expected), rel=1e-4)
    proper = (1 - ABAR[before]) / (1 - ABAR[t]) * (1 - ABAR[t] / ABAR[before])
    ours = StochasticDDIMScheduler()._get_variance(t, before)
    assert float(ours) == pytest.approx(float(proper), rel=1e-4)
    assert expected < proper / 15  # of twenty steps, one step's noise


def test_of_neighbouring_steps_both_variances_are_the_same() -> None:
    legacy = StochasticDDIMScheduler(legacy_variance=True)
    for t in (1, 300, 999):
        proper = float(StochasticDDIMScheduler()._get_variance(t, t - 1))
        assert float(legacy._get_variance(t, t - 1)) == pytest.approx(proper, rel=1e-3)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_step_is_the_papers_formula(legacy: bool) -> None:
    """x_prev = sqrt(abar_prev) x0 + sqrt(1 - abar_prev - variance) epsilon + noise."""
    scheduler = fresh_scheduler(
        StochasticDDIMScheduler(timestep_spacing="trailing", legacy_variance=legacy), 50
    )
    timestep = scheduler.timesteps[10]
    t, before = int(timestep), int(timestep) - 20
    generator = torch.Generator().manual_seed(0)
    sample, epsilon = torch.randn(2, 1, 1, 4, 4, generator=generator)
    made = scheduler.step(
        epsilon, timestep, sample, generator=torch.Generator().manual_seed(5)
    ).prev_sample
    ratio = (1 - ABAR[before]) / (1 - ABAR[t])
    variance = BETAS[t] * ratio if legacy else (1 - ABAR[t] / ABAR[before]) * ratio
    x0 = (sample - math.sqrt(1 - ABAR[t]) * epsilon) / math.sqrt(ABAR[t])
    noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(5))
    expected = (
        math.sqrt(ABAR[before]) * x0
        + math.sqrt(1 - ABAR[before] - variance) * epsilon
        + math.sqrt(variance) * noise
    )
    assert torch.allclose(made, expected, atol=1e-4)


def test_a_seed_makes_the_noise_of_all_steps() -> None:
    """Loops pass generators to those schedulers alone whose `step` names them."""

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("unet", (latents,)))

    def made(seed: int) -> Tensor:
        scheduler = fresh_scheduler(StochasticDDIMScheduler(), 5)
        latents = torch.ones(1, 1, 4, 4)
        process = denoise(latents, scheduler, predict, make_generators([seed]))
        return run(process, {"unet": lambda rows: 0.1 * rows})

    assert torch.equal(made(1), made(1))
    assert not torch.allclose(made(1), made(2), atol=0.01)


def test_without_eta_it_is_the_deterministic_one() -> None:
    sample, output = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    ours = fresh_scheduler(StochasticDDIMScheduler(eta=0.0), 10)
    theirs = fresh_scheduler(
        DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False
        ),
        10,
    )
    for timestep in ours.timesteps:
        first = ours.step(output, timestep, sample).prev_sample
        assert torch.equal(first, theirs.step(output, timestep, sample).prev_sample)


def test_its_settings_outlive_a_file_and_another_schedulers_config(tmp_path: Path) -> None:
    StochasticDDIMScheduler(eta=0.3, legacy_variance=True).save_pretrained(tmp_path)
    again = StochasticDDIMScheduler.from_pretrained(tmp_path)
    assert (again.config.eta, again.config.legacy_variance) == (0.3, True)
    other = DPMSolverMultistepScheduler(
        trained_betas=[0.1, 0.2, 0.3], num_train_timesteps=3, prediction_type="v_prediction"
    )
    ours = StochasticDDIMScheduler.from_config(other.config, eta=0.5)
    assert ours.config.prediction_type == "v_prediction"
    assert ours.config.eta == 0.5
    assert torch.allclose(ours.betas, torch.tensor([0.1, 0.2, 0.3]))
