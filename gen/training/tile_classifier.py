"""Train a small classifier of tiles from scratch, on real tiles and on pictures like them.

It measures what training pictures are worth: those that are compared are given the same network,
first weights, number of steps and order of tiles, and differ in what is shown of each tile.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gen.models.cxr_encoder import CXREncoder
from gen.training.classifier_loop import ClassifierConfig, Lesson, teach
from gen.training.tissue import turn

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2


class TileClassifierConfig(ClassifierConfig):
    """How a classifier of tiles is trained, whatever it is shown."""

    jitter: float = Field(0.15, ge=0, lt=1, description="Largest change of colours, if augmented")


@dataclass(frozen=True)
class TrainingTiles:
    """What is shown of each tile: `pictures` (N, V, 3, S, S) uint8, the first the tile itself.

    `labels` are (N,). A picture is drawn in two steps, a tile and then one of its V, so that all
    tiles count alike. `augmented` pictures are turned, mirrored and jittered in colour.
    """

    pictures: Tensor
    labels: Tensor
    augmented: bool

    def draw(
        self, count: int, jitter_by: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pictures (count, 3, S, S) in [-1, 1] and their labels; a seed means the same tiles."""
        rows = torch.randint(len(self.labels), (count,), generator=generator)
        shown = torch.randint(self.pictures.shape[1], (count,), generator=generator)
        images = self.pictures[rows, shown]
        if self.augmented:
            unit = turn(images, generator).float() / 255
            return jitter(unit, jitter_by, generator) * 2 - 1, self.labels[rows]
        return images.float() / 127.5 - 1, self.labels[rows]


def jitter(images: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Change saturation, contrast and each channel's brightness, by up to `largest`, at random.

    Args:
        images: (N, 3, S, S) in [0, 1].
        largest: 0.1 is to between 0.9 and 1.1 of what it was.
        generator: on the CPU.
    """

    def factor(channels: int) -> Tensor:
        drawn = torch.rand(len(images), channels, 1, 1, generator=generator)
        return 1 + largest * (2 * drawn - 1)

    grey = (images * torch.tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    images = grey + (images - grey) * factor(1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((mean + (images - mean) * factor(1)) * factor(3)).clamp(0, 1)


def train_tile_classifier(
    tiles: TrainingTiles,
    num_classes: int,
    config: TileClassifierConfig,
    seed: int,
    device: str = "cpu",
    report: Callable[[int], None] = lambda _: None,
) -> CXREncoder:
    """A network (N, 3, S, S) in [-1, 1] -> logits (N, K), trained on random draws of the tiles.

    Weights, draws and their order follow from the seed alone. `report` is told the steps done.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CXREncoder(config.image_size, config.widths, num_classes, 3).to(device)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return tiles.draw(count, config.jitter, generator)

    lesson = Lesson(draw, F.cross_entropy, config.num_steps)
    teach(network, [lesson], config, seed, report)
    return network.eval()


@torch.no_grad()
def class_probabilities(network: CXREncoder, images: Tensor) -> NDArray[np.float64]:
    """Probabilities (N, K) of pictures (N, 3, S, S) uint8."""
    parts = [
        network((part.float() / 127.5 - 1).to(network.device)).softmax(1).double().cpu()
        for part in images.split(64)
    ]
    return torch.cat(parts).numpy()
