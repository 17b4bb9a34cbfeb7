"""The sampling loop against closed forms and against diffusers' own loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from torch import Tensor

from gen.denoising import (
    SCHEDULERS,
    denoise,
    draw_noise,
    fresh_scheduler,
    make_generators,
    scheduler_named,
)
from gen.engine import run
from gen.errors import InvalidInput
from gen.types import ModelCall, Predict, Process

MEAN, DEVIATION = 0.7, 0.5


def gaussian_predict(sigma_of: Callable[[Tensor], float]) -> Predict:
    """The exact noise prediction for data N(MEAN, DEVIATION^2), variance-exploding form."""

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        sigma = sigma_of(timestep)
        sample = latents * math.sqrt(sigma**2 + 1)  # undo scale_model_input
        denoised = (DEVIATION**2 * sample + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)
        return (yield ModelCall("answer", ((sample - denoised) / sigma,)))

    return predict


def solve(kind: type[Any], num_inference_steps: int) -> tuple[Tensor, Tensor]:
    """What the sampler reaches, and the solution of the probability-flow ODE at sigma = 0."""
    scheduler = kind(
        num_train_timesteps=1000, beta_schedule="scaled_linear", use_karras_sigmas=True
    )
    scheduler.set_timesteps(num_inference_steps)
    scheduler.sigmas = scheduler.sigmas.double()
    start = draw_noise((1, 4, 4), make_generators([3]), torch.float64)
    latents = start * scheduler.sigmas[0]
    place = {"index": 0}

    def sigma_of(_: Tensor) -> float:
        index, place["index"] = place["index"], place["index"] + 1
        return float(scheduler.sigmas[index])

    process = denoise(latents, scheduler, gaussian_predict(sigma_of), make_generators([0]))
    result = run(process, {"answer": lambda row: row})
    sigma_max = float(scheduler.sigmas[0])
    exact = MEAN + (latents - MEAN) * DEVIATION / math.sqrt(DEVIATION**2 + sigma_max**2)
    return result, exact


@pytest.mark.parametrize(
    ("kind", "order"), [(EulerDiscreteScheduler, 1.0), (HeunDiscreteScheduler, 2.0)]
)
def test_a_solver_reaches_the_gaussian_solution_with_its_order(
    kind: type[Any], order: float
) -> None:
    limit, exact = solve(kind, 900)
    assert (limit - exact).abs().max() < 5e-3  # the last step, to sigma = 0, is never refined
    coarse, fine = ((solve(kind, n)[0] - limit).abs().max() for n in (16, 64))
    assert math.log(coarse / fine, 4) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_loop_gives_what_a_plain_diffusers_loop_gives(name: str) -> None:
    scheduler = scheduler_named(name, DDIMScheduler(beta_schedule="scaled_linear").config)
    ours = fresh_scheduler(scheduler, 6)
    noise = draw_noise((4, 8, 8), make_generators([1, 2])) * ours.init_noise_sigma

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("net", (latents,)))

    result = run(denoise(noise, ours, predict, make_generators([1, 2])), {"net": torch.sin})
    theirs = fresh_scheduler(scheduler, 6)
    latents, generators = noise, make_generators([1, 2])
    extra = (
        {"generator": generators} if name in ("ddim", "ddpm", "euler", "euler-a", "dpm++") else {}
    )
    for timestep in theirs.timesteps:
        output = torch.sin(theirs.scale_model_input(latents, timestep))
        latents = theirs.step(output, timestep, latents, **extra).prev_sample
    assert torch.equal(result, latents)


def test_an_image_has_its_own_noise_whoever_shares_the_batch() -> None:
    together = draw_noise((4, 8, 8), make_generators([5, 6, 7]))
    assert torch.equal(together[1:2], draw_noise((4, 8, 8), make_generators([6])))
    assert together.std() == pytest.approx(1, abs=0.1)


def test_a_step_callback_can_change_the_latents() -> None:
    scheduler = fresh_scheduler(DDIMScheduler(), 3)

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("net", (latents,)))

    noise = torch.ones(1, 1, 2, 2)
    process = denoise(
        noise, scheduler, predict, make_generators([0]), lambda i, t, x, _: torch.full_like(x, i)
    )
    assert torch.equal(run(process, {"net": lambda x: x}), torch.full_like(noise, 2))


def test_an_unknown_scheduler_is_refused_with_the_names() -> None:
    with pytest.raises(InvalidInput, match=r"scheduler is 'fast'.*dpm"):
        scheduler_named("fast", {})


# PNDM keeps no estimate, and diffusers' ancestral Euler takes no network that predicts x0
@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - {"pndm", "euler-a"}))
def test_every_step_tells_what_the_clean_latents_should_be(name: str) -> None:
    """A network that always predicts the same x0 makes that the estimate of every step."""
    clean = torch.full((1, 2, 4, 4), 0.25)
    config = {"beta_schedule": "scaled_linear", "prediction_type": "sample"}
    scheduler = fresh_scheduler(scheduler_named(name, config), 6)
    seen: list[Tensor] = []

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("unet", (latents,)))

    def on_step(index: int, timestep: Tensor, latents: Tensor, denoised: Tensor) -> None:
        seen.append(denoised)

    latents = draw_noise((2, 4, 4), make_generators([1])) * scheduler.init_noise_sigma
    process = denoise(latents, scheduler, predict, make_generators([1]), on_step)
    run(process, {"unet": lambda latents: clean.expand_as(latents)})
    assert len(seen) == len(scheduler.timesteps)
    for estimate in seen:
        assert torch.allclose(estimate, clean, atol=1e-3)
