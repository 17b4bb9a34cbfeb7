"""How rare an image is by a diffusion model's own reckoning: the minority score.

A denoiser that is shown little of an image falls back on the common ones, so what it loses of a
rare image is more (Um et al. 2024, Don't Play Favorites, arXiv 2301.12334, equation 5).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gen.denoising import draw_noise
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process

NOISE_LEVEL = 0.6  # of the schedule, as released
NUM_DRAWS = 5

Distance = Callable[[Tensor, Tensor], Process[Tensor]]
"""(latents (N, C, h, w), others of the same shape) -> distances (N,), differentiable."""


def minority_scores(
    clean: Tensor,
    predict: Predict,
    noising: Noising,
    generator: Sequence[torch.Generator],
    distance: Distance,
    noise_level: float = NOISE_LEVEL,
    num_draws: int = NUM_DRAWS,
) -> Process[Tensor]:
    """Expected distance (N,) of clean latents to their one-step reconstruction; rarer is larger.

    Args:
        clean: latents (N, C, h, w), scaled as in training.
        predict: the network, with its condition and without guidance.
        noising: of the model's scheduler.
        generator: one for each image, so that its score does not depend on the others.
        distance: of the latents to Tweedie's estimate of them.
        noise_level: share of the schedule that images are noised to, above 0 and below 1.
        num_draws: of noise.

    Raises:
        InvalidInput: there is not a generator for each image, or an argument is out of range.
    """
    _check(noise_level, num_draws, len(clean), len(generator))
    time = torch.tensor(float(round(noise_level * len(noising))), device=clean.device)
    total = torch.zeros(len(clean), device=clean.device)
    for _ in range(num_draws):
        noise = draw_noise(clean.shape[1:], generator).to(clean)
        noisy = noising.add(clean, noise, time)
        output = yield from predict(noisy, time)
        total = total + (yield from distance(clean, noising.clean(noisy, output, time)))
    return total / num_draws


def _check(noise_level: float, num_draws: int, num_images: int, num_generators: int) -> None:
    if not 0 < noise_level < 1 or num_draws < 1:
        raise InvalidInput(
            f"noise_level is {noise_level} with num_draws {num_draws}, but must be above 0 and"
            f" below 1 with at least one draw; try {NOISE_LEVEL} and {NUM_DRAWS}"
        )
    if num_generators != num_images:
        raise InvalidInput(
            f"generator has {num_generators} entries for {num_images} images; give one for each"
        )


def squared_error(first: Tensor, second: Tensor) -> Process[Tensor]:
    """Mean squared difference of latents: (1 - abar) / abar times the error of the noise."""
    return (first - second).float().square().flatten(1).mean(1)
    yield  # a process, though it asks nothing


def pixel_distance(decode: Callable[[Tensor], Process[Tensor]]) -> Distance:
    """Mean squared difference of the decoded images."""

    def distance(first: Tensor, second: Tensor) -> Process[Tensor]:
        both = yield from decode(torch.cat([first, second]))
        return (yield from squared_error(*both.chunk(2)))

    return distance


def encoder_distance(decode: Callable[[Tensor], Process[Tensor]], component: str) -> Distance:
    """Squared distance of the decoded images' embeddings of unit length, from 0 to 4.

    Args:
        decode: latents to images as the encoder takes them, recorded if the latents are.
        component: that answers embeddings (N, D) of images.
    """

    def embed(latents: Tensor) -> Process[Tensor]:
        images = yield from decode(latents)
        return (yield ModelCall(component, (images,), images.requires_grad))

    def distance(first: Tensor, second: Tensor) -> Process[Tensor]:
        if first.requires_grad == second.requires_grad:
            one, other = (yield from embed(torch.cat([first, second]))).chunk(2)
        else:  # to record what is held fixed would cost as much again
            one = yield from embed(first)
            other = yield from embed(second)
        return (one - other).float().square().sum(1)

    return distance
