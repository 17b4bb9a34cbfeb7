"""Self-guidance by a model whose gradient is known."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from gen.denoising import draw_noise, make_generators
from gen.engine import run
from gen.guidance.minority_score import squared_error
from gen.guidance.self_guided import lost_gradient, self_guided
from gen.noising import Noising
from gen.types import ModelCall, Process

LATENTS = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
NOISING = Noising(DDIMScheduler(prediction_type="sample"))
TIME, AGAIN = torch.tensor(300.0), torch.tensor(800.0)
SLOPE = 0.25
COMPONENTS = {"unet": lambda noisy, _: SLOPE * noisy}  # its estimate of the clean latents


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def probe(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents))), needs_grad=True))


def known_gradient(noise: Tensor) -> Tensor:
    """Of mean (a - b)^2, a = SLOPE x_t and b = SLOPE (signal a + sigma noise) held fixed."""
    estimate = SLOPE * LATENTS
    second = SLOPE * NOISING.add(estimate, noise, AGAIN)
    return 2 * SLOPE * (estimate - second) / LATENTS[0].numel()


def test_the_gradient_is_that_of_the_distance_lost_and_the_second_estimate_stays() -> None:
    noise = draw_noise(LATENTS.shape[1:], make_generators(range(3)))
    process = lost_gradient(LATENTS, TIME, AGAIN, noise, probe, NOISING, squared_error)
    assert torch.allclose(run(process, COMPONENTS), known_gradient(noise), atol=1e-6)


def test_every_so_many_steps_the_estimate_moves_along_the_gradient_over_its_largest() -> None:
    guided = self_guided(
        predict, probe, NOISING, make_generators(range(3)), squared_error, 0.5, every=2
    )
    outputs = [run(guided(LATENTS, TIME), COMPONENTS) for _ in range(3)]
    generators = make_generators(range(3))
    signal, sigma = NOISING.roots(TIME, LATENTS)
    for step, output in enumerate(outputs):
        if step % 2:
            assert torch.equal(output, SLOPE * LATENTS)
            continue
        gradient = known_gradient(draw_noise(LATENTS.shape[1:], generators))
        unit = gradient / gradient.abs().amax((1, 2, 3), keepdim=True)
        wanted = SLOPE * LATENTS + 0.5 * sigma**2 / signal * unit
        assert torch.allclose(output, wanted, atol=1e-5)


def test_draws_are_independent_of_those_before() -> None:
    # in the release the second draw saw what the first had been mapped to
    guided = self_guided(predict, probe, NOISING, make_generators(range(3)), squared_error, 0.5)
    first = run(guided(LATENTS.clone(), TIME), COMPONENTS)
    again = self_guided(predict, probe, NOISING, make_generators(range(3)), squared_error, 0.5)
    kept = LATENTS.clone()
    assert torch.equal(run(again(kept, TIME), COMPONENTS), first)
    assert torch.equal(kept, LATENTS)


def test_without_a_scale_it_is_plain_sampling() -> None:
    generators = make_generators(range(3))
    guided = self_guided(predict, probe, NOISING, generators, squared_error, 0.0)
    assert torch.equal(run(guided(LATENTS, TIME), COMPONENTS), SLOPE * LATENTS)
