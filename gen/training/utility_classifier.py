"""Train a small classifier of findings on real images, synthetic ones, or both.

It measures what training images are worth, so it is small and from scratch unless asked otherwise.
Synthetic images stand beside real ones in each batch (a fixed share, however many there are), or
before them (RoentGen-v2, arXiv 2508.16783: pre-training on synthetic, then fine-tuning on real).
Never flipped: the heart lies left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from pydantic import Field
from torch import Tensor

from gen.models.cxr_classifier import CXRClassifier
from gen.training.classifier_loop import ClassifierConfig, Lesson, teach
from gen.training.dataset import to_unit
from gen.training.finding_classifier import (
    draw_weights,
    make_classifier,
    masked_loss,
    positive_weights,
)


class UtilityClassifierConfig(ClassifierConfig):
    """How each classifier is trained, whatever it is shown."""

    image_size: int = Field(64, ge=16, description="Side in pixels of what it sees")
    feature_dim: int = Field(64, ge=8)
    encoder: str | None = Field(None, description="What to start from; null is from scratch")
    max_positive_weight: float = Field(8.0, ge=1, description="Largest weight of a rare positive")


@dataclass(frozen=True)
class Pool:
    """Images to draw from: `pictures` (N, V, 1, S, S) uint8 in V views, `stated` (N, K)."""

    pictures: Tensor
    stated: Tensor

    @cached_property
    def weights(self) -> Tensor:
        """How often each image is drawn, (N,), summing to 1; rare findings more often."""
        weights = draw_weights(self.stated)
        return weights / weights.sum()

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (count, 1, S, S) in [-1, 1], each in one of its views, and what they state."""
        rows = torch.multinomial(self.weights, count, True, generator=generator)
        shown = torch.randint(self.pictures.shape[1], (count,), generator=generator)
        return to_unit(self.pictures[rows, shown]), self.stated[rows]


@dataclass(frozen=True)
class Course:
    """What is shown for a `share` of all steps: parts of a batch (pool, share of the batch)."""

    parts: tuple[tuple[Pool, float], ...]
    share: float = 1.0

    def lesson(self, num_steps: int, max_positive_weight: float) -> Lesson:
        """Batches of this course, rare positives weighing more."""
        stated = torch.cat([pool.stated for pool, _ in self.parts])
        weights = torch.cat([pool.weights * share for pool, share in self.parts])
        weight = positive_weights(stated, weights, max_positive_weight)

        def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            counts = _counts(count, [share for _, share in self.parts])
            drawn = [
                pool.draw(number, generator)
                for (pool, _), number in zip(self.parts, counts, strict=True)
                if number
            ]
            images, labels = zip(*drawn, strict=True)
            return torch.cat(images), torch.cat(labels)

        def loss(log_odds: Tensor, labels: Tensor) -> Tensor:
            return masked_loss(log_odds, labels, weight.to(log_odds))

        return Lesson(draw, loss, num_steps)


def _counts(count: int, shares: Sequence[float]) -> list[int]:
    """`count` by shares that sum to 1; what rounding leaves over belongs to the first."""
    others = [round(count * share) for share in shares[1:]]
    return [count - sum(others), *others]


def train_utility_classifier(
    courses: Sequence[Course],
    classes: tuple[str, ...],
    config: UtilityClassifierConfig,
    seed: int,
    device: str = "cpu",
    report: Callable[[int], None] = lambda _: None,
) -> CXRClassifier:
    """A classifier of K classes, trained on courses one after the other, in `num_steps` in all.

    Raises:
        InvalidInput: the encoder to start from is none.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.encoder is None:
            network = CXRClassifier(classes, config.image_size, config.widths, config.feature_dim)
        else:
            network = make_classifier(config.encoder, classes)
    counts = _counts(config.num_steps, [course.share for course in courses])
    lessons = [
        course.lesson(count, config.max_positive_weight)
        for course, count in zip(courses, counts, strict=True)
    ]
    teach(network.to(device), lessons, config, seed, report)
    return network.eval()
