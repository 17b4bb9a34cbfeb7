"""Partial noise against the closed form of Gaussian data, for schedulers of several kinds."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from gen.anomaly.partial_noise import first_step, partial_noise
from gen.denoising import draw_noise, fresh_scheduler, make_generators, scheduler_named
from gen.engine import run
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process

MEAN, DEVIATION = 0.7, 0.5
SEEDS = range(3)
LATENTS = MEAN + 2 * torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def ideal(scheduler: Any) -> Predict:
    """The exact estimate of x0 for data N(MEAN, DEVIATION^2)."""
    noising = Noising(scheduler)

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        signal, sigma = noising.roots(timestep, latents)
        gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + sigma**2)
        return (yield ModelCall("answer", (MEAN + gain * (latents - signal * MEAN),)))

    return predict


def scheduler_of(name: str, num_inference_steps: int) -> Any:
    config = DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type="sample", clip_sample=False
    ).config
    return fresh_scheduler(scheduler_named(name, config), num_inference_steps)


def reconstruct(name: str, num_inference_steps: int, noise_level: float) -> tuple[Tensor, Tensor]:
    """What comes back, and the solution of the probability-flow ODE from the same noisy latents."""
    scheduler = scheduler_of(name, num_inference_steps)
    predict = ideal(scheduler)
    process = partial_noise(LATENTS, scheduler, predict, make_generators(SEEDS), noise_level)
    restored = run(process, {"answer": lambda row: row})
    time = scheduler.timesteps[first_step(scheduler, noise_level)]
    noising = Noising(scheduler)
    signal, sigma = noising.roots(time, LATENTS)
    noisy = noising.add(LATENTS, draw_noise((2, 8, 8), make_generators(SEEDS)), time)
    spread = (signal**2 * DEVIATION**2 + sigma**2).sqrt()
    return restored, MEAN + DEVIATION * (noisy - signal * MEAN) / spread


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
@pytest.mark.parametrize("noise_level", [0.25, 0.6, 1.0])
def test_gaussian_data_come_back_as_the_closed_form_says(name: str, noise_level: float) -> None:
    restored, exact = reconstruct(name, 500, noise_level)
    assert (restored - exact).abs().max() < 0.03


def test_the_more_noise_the_nearer_to_the_mean_of_healthy_data() -> None:
    ratios = []
    for noise_level in (0.1, 0.3, 0.6, 0.95):
        restored, _ = reconstruct("ddim", 100, noise_level)
        kept = ((restored - MEAN) * (LATENTS - MEAN)).mean() / (LATENTS - MEAN).square().mean()
        ratios.append(float(kept))
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 0.8
    assert abs(ratios[-1]) < 0.1


def test_it_begins_within_the_level_and_calls_the_network_no_more_often() -> None:
    scheduler = scheduler_of("ddim", 20)
    assert scheduler.timesteps[first_step(scheduler, 0.25)] == 250
    calls: list[float] = []

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        calls.append(float(timestep))
        return (yield ModelCall("answer", (latents,)))

    process = partial_noise(LATENTS, scheduler, predict, make_generators(SEEDS), 0.25)
    run(process, {"answer": lambda row: row})
    assert calls == [250, 200, 150, 100, 50, 0]


def test_a_picture_has_its_own_noise_whoever_shares_the_batch() -> None:
    def restored(rows: list[int]) -> Tensor:
        scheduler = scheduler_of("ddpm", 20)
        process = partial_noise(LATENTS[rows], scheduler, ideal(scheduler), make_generators(rows))
        return run(process, {"answer": lambda row: row})

    assert torch.allclose(restored([0, 1, 2])[1:2], restored([1]))


@pytest.mark.parametrize("noise_level", [0.0, 1.5, -1.0])
def test_a_level_that_reaches_no_step_is_refused(noise_level: float) -> None:
    with pytest.raises(InvalidInput, match=f"noise_level is {noise_level}"):
        first_step(scheduler_of("ddim", 20), noise_level)
