"""A word that no dictionary has, learnt for each image while it forms, so that it turns out rare.

Um & Ye 2025 (MinorityPrompt, arXiv 2410.07838): a token is put behind the prompt, and in the early
steps its embedding climbs what the estimate of the clean image loses when it is noised again and
denoised under the prompt as it was. All other words keep their embeddings.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gen.denoising import draw_noise
from gen.guidance.minority_score import Distance
from gen.noising import Noising
from gen.types import ConditionedPredict, Predict, Process

NUM_UPDATES = 3
UNTIL = 0.8  # of the schedule: nearer to the clean image, the word no longer changes
NOISE_LEVEL = 0.75  # of the schedule, to which estimates are noised again
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of Adam

Encode = Callable[[Tensor], Process[Tensor]]
"""Embeddings (N, D) of the token -> condition (N, L, D), which can be differentiated."""


def optimised_prompt(
    guided_by: Callable[[Tensor], Predict],
    encode: Encode,
    probe: ConditionedPredict,
    prompt: Tensor,
    token: Tensor,
    noising: Noising,
    generator: Sequence[torch.Generator],
    distance: Distance,
    learning_rate: float,
    num_updates: int = NUM_UPDATES,
    until: float = UNTIL,
    noise_level: float = NOISE_LEVEL,
) -> Predict:
    """Predictions under the prompt with its learnt word.

    Args:
        guided_by: a condition (N, L, D) -> the network under it, guided or not.
        encode: see `Encode`.
        probe: the network without guidance, whose answers can be differentiated.
        prompt: condition (N, L, D) of the prompt as it was.
        token: embeddings (N, D) to start from.
        noising: of the model's scheduler.
        generator: one for each image, for the second noise.
        distance: of the two estimates; the paper's is `squared_error`.
        learning_rate: of Adam; 0 is plain sampling.
        num_updates: of the token, at each step that it is learnt in.
        until: share of the schedule below which the token stays.
        noise_level: see `NOISE_LEVEL`.
    """
    again = torch.tensor(float(round(noise_level * len(noising))))
    current = guided_by(prompt)
    moments = torch.zeros_like(token), torch.zeros_like(token)
    updates = 0

    def lost(latents: Tensor, timestep: Tensor, leaf: Tensor) -> Process[Tensor]:
        """What each estimate loses, both ways, summed over images."""
        condition = yield from encode(leaf)
        answer = yield from probe(latents, timestep, condition)
        estimate = noising.clean(latents, answer, timestep)
        noise = draw_noise(latents.shape[1:], generator).to(latents)
        noisy = noising.add(estimate, noise, again.to(latents.device))
        answer = yield from probe(noisy, again.to(latents.device), prompt)
        second = noising.clean(noisy, answer, again)
        there = yield from distance(estimate.detach(), second)
        back = yield from distance(estimate, second.detach())
        return (there + back).sum()

    def climb(latents: Tensor, timestep: Tensor) -> Process[None]:
        """One step of Adam, of each image's token alone."""
        nonlocal token, moments, updates
        leaf = token.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((yield from lost(latents, timestep, leaf)), leaf)
        updates += 1
        first = _BETAS[0] * moments[0] + (1 - _BETAS[0]) * gradient
        second = _BETAS[1] * moments[1] + (1 - _BETAS[1]) * gradient**2
        moments = first, second
        step = first / (1 - _BETAS[0] ** updates)
        size = (second / (1 - _BETAS[1] ** updates)).sqrt() + _EPSILON
        token = (token + learning_rate * step / size).detach()

    def guided(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        nonlocal current
        if learning_rate and float(timestep) >= until * len(noising):
            for _ in range(num_updates):
                yield from climb(latents, timestep)
            current = guided_by((yield from encode(token)).detach())
        return (yield from current(latents, timestep))

    return guided
