"""Guidance on a network that answers with its condition."""

import pytest
import torch
from torch import Tensor

from gen.engine import run
from gen.guidance.classifier_free import classifier_free
from gen.types import ModelCall, Process

CONDITION, NULL = torch.full((2, 1, 1), 3.0), torch.full((1, 1, 1), 1.0)


def predict(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
    return (yield ModelCall("net", (latents, condition)))


def guide(scale: float, timestep: int = 500, interval: tuple[float, float] = (0, 1)) -> list[int]:
    """The first value of the answer and the rows of every forward."""
    rows: list[int] = []

    def net(latents: Tensor, condition: Tensor) -> Tensor:
        rows.append(len(latents))
        return condition

    guided = classifier_free(predict, CONDITION, NULL, scale, interval)
    answer = run(guided(torch.zeros(2, 1, 1), torch.tensor(timestep)), {"net": net})
    return [int(answer[0]), *rows]


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1), (2.0, 5), (4.0, 9)])
def test_guidance_goes_from_null_through_the_condition(scale: float, expected: int) -> None:
    assert guide(scale) == [expected, 4]


def test_scale_one_never_asks_for_the_null_condition() -> None:
    assert guide(1.0) == [3, 2]


def test_outside_its_interval_guidance_is_off() -> None:
    assert guide(4.0, timestep=900, interval=(0.1, 0.8)) == [3, 2]
    assert guide(4.0, timestep=500, interval=(0.1, 0.8)) == [9, 4]
