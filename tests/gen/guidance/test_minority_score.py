"""The minority score against algebra and closed forms."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from gen.denoising import draw_noise, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.minority_score import (
    Distance,
    encoder_distance,
    minority_scores,
    pixel_distance,
    squared_error,
)
from gen.noising import PREDICTION_TYPES, Noising
from gen.types import Components, ModelCall, Process

CLEAN = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def decode(latents: Tensor) -> Process[Tensor]:
    return (yield ModelCall("decoder", (latents,)))


def scores(
    components: Components,
    noising: Noising,
    clean: Tensor = CLEAN,
    distance: Distance = squared_error,
    first_seed: int = 0,
    num_draws: int = 3,
) -> Tensor:
    generators = make_generators(range(first_seed, first_seed + len(clean)))
    process = minority_scores(clean, predict, noising, generators, distance, 0.6, num_draws)
    return run(process, components)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_with_squared_error_it_is_the_error_of_the_noise_prediction(kind: str) -> None:
    noising = Noising(DDIMScheduler(prediction_type=kind))

    def unet(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return 0.3 * noisy + timesteps.view(-1, 1, 1, 1) / 5000

    found = scores({"unet": unet}, noising, num_draws=1)
    time = torch.tensor(600.0)
    noise = draw_noise(CLEAN.shape[1:], make_generators(range(6)))
    noisy = noising.add(CLEAN, noise, time)
    signal, sigma = noising.roots(time, noisy)
    estimate = noising.clean(noisy, unet(noisy, time.expand(6)), time)
    error = ((noisy - signal * estimate) / sigma - noise).square().flatten(1).mean(1)
    alpha_bar = signal.square().flatten()
    assert torch.allclose(found, (1 - alpha_bar) / alpha_bar * error, rtol=1e-4)


def test_of_a_model_that_knows_only_the_mean_it_is_the_distance_to_the_mean() -> None:
    noising = Noising(DDIMScheduler(prediction_type="sample"))
    found = scores({"unet": lambda noisy, _: torch.full_like(noisy, 0.5)}, noising)
    assert torch.allclose(found, (CLEAN - 0.5).square().flatten(1).mean(1), rtol=1e-5)


def test_an_image_has_its_score_whoever_is_scored_beside_it() -> None:
    noising = Noising(DDIMScheduler())
    components = {"unet": lambda noisy, _: noisy * 0.5}
    together = scores(components, noising)
    alone = [scores(components, noising, CLEAN[i : i + 1], first_seed=i) for i in range(6)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_distances_of_pictures_and_of_embeddings() -> None:
    noising = Noising(DDIMScheduler(prediction_type="sample"))
    components = {
        "unet": lambda noisy, _: torch.zeros_like(noisy),
        "decoder": lambda latents: 2 * latents + 1,
        "embedder": lambda images: torch.nn.functional.normalize(images.flatten(1), dim=1),
    }
    pixels = scores(components, noising, distance=pixel_distance(decode))
    assert torch.allclose(pixels, 4 * CLEAN.square().flatten(1).mean(1), rtol=1e-5)
    angles = scores(components, noising, distance=encoder_distance(decode, "embedder"))
    ones = torch.ones(6, 48)
    cosine = torch.nn.functional.cosine_similarity(2 * CLEAN.flatten(1) + 1, ones)
    assert torch.allclose(angles, 2 - 2 * cosine, atol=1e-5)


def test_what_cannot_be_scored_is_refused() -> None:
    noising = Noising(DDIMScheduler())
    for level, draws in ((0.0, 1), (1.0, 1), (0.6, 0)):
        with pytest.raises(InvalidInput, match=r"try 0\.6 and 5"):
            run(
                minority_scores(
                    CLEAN, predict, noising, make_generators(range(6)), squared_error, level, draws
                ),
                {},
            )
    with pytest.raises(InvalidInput, match="5 entries for 6 images"):
        run(minority_scores(CLEAN, predict, noising, make_generators(range(5)), squared_error), {})
