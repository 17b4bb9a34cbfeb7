"""Classical views of real images, made once: what costs nothing is what synthetic must beat."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.bars import Report
from jobs.kept_arrays import KeptArrays, identity_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

View = Callable[["NDArray[np.float32]", int], "NDArray[np.float32]"]
"""(pixels (H, W) in [0, 1], seed) -> another view of them; a seed always gives the same."""


def classical_view(pixels: "NDArray[np.float32]", seed: int) -> "NDArray[np.float32]":
    """By the transforms that classifiers of radiographs are usually trained with, unflipped."""
    from gen.augmentation.classical import BASELINE, transformed

    return transformed(pixels, None, BASELINE, seed)[0]


def draw_views(
    images: "Tensor", count: int, folder: Path, report: Report, view: View | None = None
) -> "Tensor":
    """Each image and `count` views of it, (N, 1 + count, 1, S, S) uint8, kept in the folder.

    Args:
        images: (N, 1, S, S) uint8.
        count: of views.
        folder: made if missing.
        report: told how many images are done.
        view: `classical_view` unless given.
    """
    import numpy as np
    import torch

    chosen = view or classical_view

    def make() -> "NDArray[np.uint8]":
        made = np.empty((len(images), count, 1, *images.shape[-2:]), np.uint8)
        for row, image in enumerate(images):
            pixels = image[0].numpy().astype(np.float32) / 255
            for number in range(count):
                made[row, number, 0] = np.round(chosen(pixels, row * count + number) * 255)
            report(row + 1, len(images))
        return made

    identity = identity_of((chosen.__module__, chosen.__qualname__, count), (images,))
    made = torch.from_numpy(KeptArrays(folder).get(identity, make))
    return torch.cat([images[:, None], made], 1)
