"""Guidance by a classifier whose gradient is known."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from gen.engine import Engine, run
from gen.guidance.ordinal_classifier import towards_class
from gen.noising import PREDICTION_TYPES, Noising
from gen.types import ModelCall, Process

LATENTS = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TIME = torch.tensor(300.0)
CLASSES = torch.tensor([0, 1, 1])
# log-odds linear in the latents, so that the gradient is (weight of class - mean weight)
WEIGHTS = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
asked: list[float] = []


def classifier(latents: Tensor, timesteps: Tensor) -> Tensor:
    asked.append(float(timesteps[0]))
    return latents.flatten(1) @ WEIGHTS.T


COMPONENTS = {"unet": lambda noisy, _: 0.5 * noisy, "minority_classifier": classifier}


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def classify(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    rows = (latents, timestep.expand(len(latents)))
    return (yield ModelCall("minority_classifier", rows, needs_grad=True))


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_noise_moves_by_the_gradient_of_the_log_probability(kind: str) -> None:
    noising = Noising(DDIMScheduler(prediction_type=kind))
    guided = towards_class(predict, classify, noising, CLASSES, 3.0)
    output = run(guided(LATENTS, TIME), COMPONENTS)
    probability = (LATENTS.flatten(1) @ WEIGHTS.T).softmax(1)
    gradient = (WEIGHTS[CLASSES] - probability @ WEIGHTS).view_as(LATENTS)
    signal, sigma = noising.roots(TIME, LATENTS)
    plain = noising.clean(LATENTS, 0.5 * LATENTS, TIME)
    moved = noising.clean(LATENTS, output, TIME)
    # Tweedie: a higher log p by x_t moves the estimate by sigma^2 / signal times its gradient
    assert torch.allclose(moved - plain, 3.0 * sigma**2 / signal * gradient, atol=1e-4)


def test_it_asks_the_classifier_as_seldom_as_told_and_without_a_scale_never() -> None:
    noising = Noising(DDIMScheduler())
    guided = towards_class(predict, classify, noising, CLASSES, 1.0, every=3)
    asked.clear()
    outputs = [run(guided(LATENTS, torch.tensor(t)), COMPONENTS) for t in (900.0, 800.0, 700.0)]
    assert asked == [900.0]
    assert not torch.equal(outputs[2], 0.5 * LATENTS)
    late = torch.tensor(199.0)
    assert torch.equal(run(guided(LATENTS, late), COMPONENTS), 0.5 * LATENTS)
    assert asked == [900.0]
    off = towards_class(predict, classify, noising, CLASSES, 0.0)
    assert torch.equal(run(off(LATENTS, TIME), COMPONENTS), 0.5 * LATENTS)
    assert asked == [900.0]


def test_rows_with_and_without_it_share_forwards_unchanged() -> None:
    noising = Noising(DDIMScheduler())
    engine = Engine(COMPONENTS, max_rows=8)
    tickets = [
        engine.submit(towards_class(predict, classify, noising, CLASSES, scale)(LATENTS, TIME))
        for scale in (0.0, 1.0, 2.0)
    ]
    while engine.step():
        pass
    for ticket, scale in zip(tickets, (0.0, 1.0, 2.0), strict=True):
        alone = run(
            towards_class(predict, classify, noising, CLASSES, scale)(LATENTS, TIME), COMPONENTS
        )
        assert torch.allclose(ticket.result(), alone, atol=1e-6)
