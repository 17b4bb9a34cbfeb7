"""Classifiers of tiles, each trained once: what it says of held-out tiles is kept.

A file's name is the hash of all that its numbers depend on, the pixels among it.
"""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

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

        folder.mkdir(exist_ok=True)
        self._folder, self._num_classes, self._config = folder, num_classes, config
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def probabilities(
        self, tiles: "TrainingTiles", held_out: "Tensor", seed: int
    ) -> "NDArray[np.floating]":
        """What a classifier trained on the tiles says of pictures (M, 3, S, S) uint8: (M, K)."""
        import numpy as np

        from gen.data.atomic import atomic_file
        from gen.training.tile_classifier import class_probabilities, train_tile_classifier

        file = self._folder / f"{self._identity(tiles, held_out, seed)}.npy"
        if not file.exists():
            network = train_tile_classifier(
                tiles, self._num_classes, self._config, seed, self._device
            )
            with atomic_file(file) as stream:
                np.save(stream, class_probabilities(network, held_out))
        kept: NDArray[np.floating] = np.load(file, allow_pickle=False)
        return kept

    def _identity(self, tiles: "TrainingTiles", held_out: "Tensor", seed: int) -> str:
        settings = (
            self._config.model_dump_json(), self._num_classes, seed, tiles.augmented,
            tuple(tiles.pictures.shape), tiles.labels.tolist(),
        )  # fmt: skip
        digest = hashlib.sha256(repr(settings).encode())
        for pixels in (tiles.pictures, held_out):
            digest.update(pixels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

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
