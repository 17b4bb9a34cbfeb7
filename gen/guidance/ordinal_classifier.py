"""Guidance towards a class of rarity, by the gradient of a classifier of noisy latents.

Um et al. 2024 (Don't Play Favorites, arXiv 2301.12334, equation 7). The classes are quantiles of
the minority score, from the commonest, 0, to the rarest.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.noising import Noising
from gen.types import Predict, Process

# Share of the schedule below which the gradient no longer acts: what the image shows is decided,
# and pushing on would only distort it.
UNTIL = 0.2


def towards_class(
    predict: Predict,
    classify: Predict,
    noising: Noising,
    classes: Tensor,
    scale: float,
    every: int = 1,
    until: float = UNTIL,
) -> Predict:
    """Predictions of noise less sqrt(1 - abar_t) scale grad log p(class | x_t).

    Args:
        predict: the network, guided or not.
        classify: the classifier's log-odds (N, L), which can be differentiated.
        noising: of the model's scheduler.
        classes: (N,) to move to.
        scale: w of the paper; 0 asks the classifier nothing.
        every: the gradient is computed at every so many steps and used until the next.
        until: see `UNTIL`; 0 is as published.
    """
    counter = 0
    gradient: Tensor | None = None

    def guided(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        nonlocal counter, gradient
        output = yield from predict(latents, timestep)
        if scale == 0 or float(timestep) < until * len(noising):
            return output
        if counter % every == 0:
            gradient = yield from class_gradient(latents, timestep, classify, classes)
        counter += 1
        assert gradient is not None
        _, sigma = noising.roots(timestep, latents)
        return noising.shift_noise(output, -scale * sigma * gradient.to(output), timestep)

    return guided


def class_gradient(
    latents: Tensor, timestep: Tensor, classify: Predict, classes: Tensor
) -> Process[Tensor]:
    """grad log p(class | x_t), (N, C, h, w)."""
    leaf = latents.detach().requires_grad_()
    log_odds = yield from classify(leaf, timestep)
    chosen = F.log_softmax(log_odds.float(), 1).gather(1, classes.to(leaf.device)[:, None])
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    return gradient
