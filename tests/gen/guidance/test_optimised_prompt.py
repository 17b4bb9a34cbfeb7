"""A learnt word against a network whose best word is known, and torch's own Adam."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from gen.denoising import draw_noise, make_generators
from gen.engine import run
from gen.guidance.minority_score import squared_error
from gen.guidance.optimised_prompt import optimised_prompt
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process

NOISING = Noising(DDIMScheduler(prediction_type="sample"))
LATENTS = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TOKEN = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
WORDS = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(2))
MIX = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
EARLY, LATE, AGAIN = (torch.tensor(time) for time in (900.0, 300.0, 750.0))


def unet(noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
    """Its estimate of the clean latents."""
    return 0.5 * noisy + (condition.mean(1) @ MIX).view_as(noisy)


COMPONENTS = {
    "unet": unet,
    "text_encoder": lambda words, token: torch.cat([words, token[:, None]], 1),
}


def encode(token: Tensor) -> Process[Tensor]:
    return (yield ModelCall("text_encoder", (WORDS[: len(token)], token), needs_grad=True))


def probe(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
    times = timestep.expand(len(latents))
    return (yield ModelCall("unet", (latents, times, condition), needs_grad=True))


def guided_by(condition: Tensor) -> Predict:
    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield ModelCall("unet", (latents, timestep.expand(len(latents)), condition)))

    return predict


def guided(learning_rate: float, num_updates: int, rows: slice = slice(None)) -> Predict:
    return optimised_prompt(
        guided_by,
        encode,
        probe,
        WORDS[rows],
        TOKEN[rows],
        NOISING,
        make_generators(range(3)[rows]),
        squared_error,
        learning_rate,
        num_updates,
        until=0.8,
        noise_level=0.75,
    )


def test_the_word_climbs_as_adam_would_and_stays_in_late_steps() -> None:
    predict = guided(0.1, 4)
    early, late = (run(predict(LATENTS, time), COMPONENTS) for time in (EARLY, LATE))
    # the same by torch: maximise what is lost, both ways, over the token alone
    token = torch.nn.Parameter(TOKEN.clone())
    adam = torch.optim.Adam([token], lr=0.1, maximize=True)
    generators = make_generators(range(3))
    for _ in range(4):
        condition = torch.cat([WORDS, token[:, None]], 1)
        estimate = unet(LATENTS, EARLY, condition)
        noisy = NOISING.add(estimate, draw_noise(LATENTS.shape[1:], generators), AGAIN)
        second = unet(noisy, AGAIN, WORDS)
        there = (estimate.detach() - second).square().flatten(1).mean(1)
        back = (estimate - second.detach()).square().flatten(1).mean(1)
        adam.zero_grad()
        (there + back).sum().backward()
        adam.step()
    wanted = unet(LATENTS, EARLY, torch.cat([WORDS, token.detach()[:, None]], 1))
    assert not torch.allclose(token, TOKEN, atol=0.1)
    assert torch.allclose(early, wanted, atol=1e-4)
    assert torch.equal(late, early)  # this network does not look at the time


def test_a_word_is_learnt_for_each_image_alone() -> None:
    together = run(guided(0.1, 2)(LATENTS, EARLY), COMPONENTS)
    alone = run(guided(0.1, 2, slice(0, 1))(LATENTS[:1], EARLY), COMPONENTS)
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_without_a_learning_rate_the_prompt_is_as_it_was() -> None:
    plain = run(guided_by(WORDS)(LATENTS, EARLY), COMPONENTS)
    assert torch.equal(run(guided(0.0, 2)(LATENTS, EARLY), COMPONENTS), plain)
