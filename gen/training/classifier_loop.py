"""Train a small classifier in lessons, each its own pictures; a seed means one classifier.

Classifiers that are compared get the same network, first weights and number of steps, and differ
in what they are shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from gen.training.loop import learning_rate_factor, step_generator

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""(count, generator on the CPU) -> pictures (count, C, S, S) in [-1, 1] and their labels."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(the network's answers, labels) -> a number."""


class ClassifierConfig(BaseModel):
    """How a classifier is trained, whatever it is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size: int = Field(128, ge=16, description="Side in pixels of what it sees")
    widths: tuple[int, ...] = (8, 16, 32, 64)
    num_steps: int = Field(300, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    num_warmup_steps: int = Field(20, ge=0)


@dataclass(frozen=True)
class Lesson:
    """What is shown for `num_steps`, and how answers are judged."""

    draw: Draw
    loss: Loss
    num_steps: int


def teach(
    network: nn.Module,
    lessons: Sequence[Lesson],
    config: ClassifierConfig,
    seed: int,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Train in place, one lesson after the other; each has its warm-up and its fall of the rate.

    Draws follow from the seed and the step alone. `report` is told the steps done.
    """
    device = next(network.parameters()).device
    done = 0
    for lesson in lessons:
        optimizer = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        for step in range(lesson.num_steps):
            images, labels = lesson.draw(config.batch_size, step_generator(seed, done))
            loss = lesson.loss(network(images.to(device)), labels.to(device))
            factor = learning_rate_factor(step, config.num_warmup_steps, lesson.num_steps)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            report(done)
