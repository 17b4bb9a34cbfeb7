"""Variation against the closed form of Gaussian data, its two ends, and diffusers' own pipeline."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from torch import Tensor

from gen.augmentation.sdedit import sdedit, steps_left_out
from gen.denoising import denoise, draw_noise, fresh_scheduler, make_generators, scheduler_named
from gen.engine import run
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process
from pipelines.redrawing import Sampling, guided
from pipelines.text_to_cxr import TextToCXRPipeline

MEAN, DEVIATION = 0.7, 0.5
ANSWER = {"answer": lambda row: row}


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
        beta_schedule="scaled_linear",
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    ).config
    return fresh_scheduler(scheduler_named(name, config), num_inference_steps)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_variations_of_one_picture_have_the_mean_and_variance_of_the_closed_form(
    name: str, strength: float
) -> None:
    picture = 2.5
    latents = torch.full((1, 1, 128, 128), picture)
    scheduler = scheduler_of(name, 500)
    varied = run(
        sdedit(latents, scheduler, ideal(scheduler), make_generators([1]), strength), ANSWER
    )
    time = scheduler.timesteps[steps_left_out(scheduler, strength)]
    signal, sigma = (float(each) for each in Noising(scheduler).roots(time, torch.zeros(())))
    spread = (signal**2 * DEVIATION**2 + sigma**2) ** 0.5
    # the ODE maps x_t to MEAN + DEVIATION (x_t - signal MEAN) / spread, and x_t is Gaussian
    mean = MEAN + DEVIATION * signal * (picture - MEAN) / spread
    assert float(varied.mean()) == pytest.approx(mean, abs=0.02)
    assert float(varied.std()) == pytest.approx(DEVIATION * sigma / spread, abs=0.02)


def test_strength_towards_0_gives_the_picture_back() -> None:
    latents = MEAN + torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    gaps = []
    for strength in (0.001, 0.05, 0.4):
        scheduler = scheduler_of("ddim", 1000)
        process = sdedit(latents, scheduler, ideal(scheduler), make_generators([1, 2]), strength)
        gaps.append(float((run(process, ANSWER) - latents).abs().mean()))
    assert gaps[0] < 0.03
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("name", ["ddim", "dpm++", "ddpm"])
def test_strength_1_is_text_to_image_from_the_same_noise(name: str) -> None:
    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("answer", (torch.tanh(latents) * 0.3,)))

    picture = torch.full((2, 1, 4, 4), 9.0)
    scheduler = scheduler_of(name, 8)
    varied = run(sdedit(picture, scheduler, predict, make_generators([5, 6]), 1), ANSWER)
    scheduler, generators = scheduler_of(name, 8), make_generators([5, 6])
    noise = draw_noise((1, 4, 4), generators) * scheduler.init_noise_sigma
    assert torch.equal(varied, run(denoise(noise, scheduler, predict, generators), ANSWER))


@pytest.mark.parametrize("strength", [0.25, 0.6, 0.9])
def test_it_is_what_the_pipeline_of_diffusers_makes(
    tiny_parts: dict[str, Any], strength: float
) -> None:
    config = DDIMScheduler(timestep_spacing="trailing", clip_sample=False, steps_offset=1).config
    parts = {**tiny_parts, "scheduler": DDIMScheduler.from_config(config)}
    drawn = TextToCXRPipeline(**parts)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    theirs = StableDiffusionImg2ImgPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "pneumonia", latents, strength, 20, guidance_scale=3.0,
        generator=make_generators([7])[0], output_type="latent",
    ).images  # fmt: skip

    def ours() -> Process[Tensor]:
        ask = yield from guided(drawn, Sampling("pneumonia", "", strength, 3.0, 20, 7))
        scheduler = fresh_scheduler(drawn.scheduler, 20)
        return (yield from sdedit(latents, scheduler, ask, make_generators([7]), strength))

    assert torch.allclose(run(ours(), drawn.networks), expected, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(InvalidInput, match="must be above 0 and at most 1"):
        steps_left_out(scheduler_of("ddim", 10), strength)


def test_a_strength_below_all_steps_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"strength is 0\.05, but the last of 10 steps begins"):
        steps_left_out(scheduler_of("ddim", 10), 0.05)
