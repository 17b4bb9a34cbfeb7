"""Boosted starts and skipped steps against closed forms of Gaussians."""

import math
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from gen.denoising import denoise, draw_noise, fresh_scheduler, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.boost_and_skip import boost, cosines, start_scale
from gen.noising import Noising
from gen.types import ModelCall, Process

SHAPE = (1, 8, 8)
SEEDS = range(4)
SPREAD = 0.5  # of the Gaussian that the network knows
SCHEDULERS = (
    DDIMScheduler(clip_sample=False),
    DPMSolverMultistepScheduler(),
    EulerDiscreteScheduler(),
)


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def draw(scheduler: Any, factor: float, skip: int, num_steps: int = 100) -> tuple[Tensor, Tensor]:
    """What is sampled of the data N(0, SPREAD^2), and the noise it was sampled from."""
    noising = Noising(scheduler)

    def unet(noisy: Tensor, timesteps: Tensor) -> Tensor:
        signal, sigma = noising.roots(timesteps, noisy)
        return noisy * sigma / (signal**2 * SPREAD**2 + sigma**2)  # the exact noise, on average

    generators = make_generators(SEEDS)
    fresh = fresh_scheduler(scheduler, num_steps)
    noise = draw_noise(SHAPE, generators)
    start = boost(noise, factor) * start_scale(fresh, skip)
    process = denoise(start, fresh, predict, generators, skip=skip)
    return run(process, {"unet": unet}), noise


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(("factor", "skip"), [(1.0, 0), (1.5, 0), (1.5, 3), (2.5, 20)])
def test_a_boost_stretches_a_gaussian_by_the_factor(
    scheduler: Any, factor: float, skip: int
) -> None:
    # the flow is linear: x0 = spread x_t / sqrt(abar spread^2 + 1 - abar)
    found, noise = draw(scheduler, factor, skip)
    timestep = fresh_scheduler(scheduler, 100).timesteps[skip]
    signal, sigma = Noising(scheduler).roots(timestep.float(), noise)
    wanted = factor * SPREAD * noise / (signal**2 * SPREAD**2 + sigma**2).sqrt()
    assert torch.allclose(found, wanted, rtol=0.03, atol=0.01)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda each: type(each).__name__)
def test_skipped_steps_are_not_computed(scheduler: Any) -> None:
    fresh = fresh_scheduler(scheduler, 10)
    seen: list[int] = []
    process = denoise(
        torch.zeros(1, *SHAPE),
        fresh,
        predict,
        make_generators([0]),
        on_step=lambda index, *_: seen.append(index),  # type: ignore[func-returns-value]
        skip=4,
    )
    asked: list[float] = []

    def unet(noisy: Tensor, timesteps: Tensor) -> Tensor:
        asked.append(float(timesteps[0]))
        return noisy

    run(process, {"unet": unet})
    assert seen == list(range(4, 10))
    assert asked == pytest.approx(fresh_scheduler(scheduler, 10).timesteps[4:].tolist())


def test_long_waves_grow_by_the_factor_and_short_ones_stay() -> None:
    rows, columns = cosines(8), cosines(6)
    assert torch.allclose(rows @ rows.T, torch.eye(8, dtype=rows.dtype), atol=1e-12)

    def wave(vertical: int, horizontal: int) -> Tensor:
        return torch.outer(rows[vertical], columns[horizontal]).float()[None, None]

    for wanted, place in ((3.0, (0, 0)), (1 + 2 * math.exp(-0.5), (2, 0)), (1.0, (7, 5))):
        assert torch.allclose(boost(wave(*place), 3.0, 2.0), wanted * wave(*place), atol=1e-3)
    noise = draw_noise((2, 8, 6), make_generators(SEEDS))
    assert torch.allclose(boost(noise, 1.0, 2.0), noise, atol=1e-6)
    assert torch.allclose(boost(noise, 1.7, 1e6), boost(noise, 1.7), atol=1e-5)


def test_what_cannot_be_boosted_or_skipped_is_refused() -> None:
    scheduler = fresh_scheduler(SCHEDULERS[0], 10)
    noise = torch.zeros(1, *SHAPE)
    for factor in (0.0, math.nan):
        with pytest.raises(InvalidInput, match=r"must be above 0; try 1\.2"):
            boost(noise, factor)
    for skip in (-1, 10):
        with pytest.raises(InvalidInput, match="from 0 to 9"):
            start_scale(scheduler, skip)
    counting = fresh_scheduler(PNDMScheduler(skip_prk_steps=True), 10)
    with pytest.raises(InvalidInput, match="PNDMScheduler, which cannot leave out its first 2"):
        run(denoise(noise, counting, predict, make_generators([0]), skip=2), {})
