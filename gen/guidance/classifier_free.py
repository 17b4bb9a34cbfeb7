"""Classifier-free guidance, over all noise levels or an interval of them."""

import math

import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.types import ConditionedPredict, Predict, Process


def classifier_free(
    predict: ConditionedPredict,
    condition: Tensor,
    null: Tensor,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    num_train_timesteps: int = 1000,
) -> Predict:
    """Push predictions from a null condition towards the condition (Ho & Salimans 2022).

    Args:
        predict: the conditioned network; both halves go to it in one call.
        condition: (N, L, D).
        null: (1, L, D) or (N, L, D), the empty or the negative prompt.
        scale: 1.0 is no guidance and never evaluates the null condition.
        interval: where `timestep / num_train_timesteps` must lie for guidance to act
            (Kynkäänniemi et al. 2024); elsewhere only the condition is evaluated.
        num_train_timesteps: length of the training schedule.
    """
    if not math.isfinite(scale):
        raise InvalidInput(f"scale is {scale}, but must be a finite number; try 2.0")
    low, high = interval
    if not 0.0 <= low <= high <= 1.0:
        raise InvalidInput(f"interval is {interval}, but must be 0 <= low <= high <= 1; try (0, 1)")
    if null.shape[1:] != condition.shape[1:] or len(null) not in (1, len(condition)):
        raise InvalidInput(
            f"null has the shape {tuple(null.shape)}, which does not fit the condition's "
            f"{tuple(condition.shape)}; give one row, or one for each row of the condition"
        )
    null = null.expand_as(condition)

    def guided(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        if scale == 1.0 or not low <= float(timestep) / num_train_timesteps <= high:
            return (yield from predict(latents, timestep, condition))
        both = torch.cat([null, condition])
        rows = yield from predict(torch.cat([latents, latents]), timestep, both)
        base, conditional = rows.chunk(2)
        return base + scale * (conditional - base)

    return guided
