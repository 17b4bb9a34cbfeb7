"""Classifiers of tiles, each trained once: what it says of held-out tiles is kept."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.kept_arrays import KeptArrays, identity_of

if TYPE_CHECKING:  # torch is imported when something is trained
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.training.tile_classifier import TileClassifierConfig, TrainingTiles

_TIMED_STEPS = 3


class ClassifierRuns:
    """Trains what was not trained before.

    Args:
        folder: of the files; made if missing.
        num_classes: K.
        config: how each is trained.
    """

    def __init__(self, folder: Path, num_classes: int, config: "TileClassifierConfig") -> None:
        import torch

        self._kept = KeptArrays(folder)
        self._num_classes, self._config = num_classes, config
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def probabilities(
        self, tiles: "TrainingTiles", held_out: "Tensor", seed: int
    ) -> "NDArray[np.floating]":
        """What a classifier trained on the tiles says of pictures (M, 3, S, S) uint8: (M, K)."""
        from gen.training.tile_classifier import class_probabilities, train_tile_classifier

        def train() -> "NDArray[np.floating]":
            network = train_tile_classifier(
                tiles, self._num_classes, self._config, seed, self._device
            )
            return class_probabilities(network, held_out)

        settings = (
            self._config.model_dump_json(), self._num_classes, seed, tiles.augmented,
            tiles.labels.tolist(),
        )  # fmt: skip
        return self._kept.get(identity_of(settings, (tiles.pictures, held_out)), train)

    def seconds_each(self, images: "Tensor") -> float:
        """How long a training will take, by a few steps on any pictures (N, 3, S, S) uint8."""
        import torch

        from gen.training.tile_classifier import TrainingTiles, train_tile_classifier

        few = self._config.model_copy(update={"num_steps": 1 + _TIMED_STEPS})
        labels = torch.arange(len(images)) % self._num_classes
        tiles = TrainingTiles(images[:, None], labels, augmented=True)
        reached: list[float] = []
        train_tile_classifier(
            tiles, self._num_classes, few, 0, self._device,
            lambda _: reached.append(time.monotonic()),
        )  # fmt: skip
        # the first step allocates
        return (reached[-1] - reached[0]) / _TIMED_STEPS * self._config.num_steps
