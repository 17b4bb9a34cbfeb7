"""How networks of others want their pixels: less a mean, over a deviation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen.errors import ModelRefused

# What image encoders of the DINO family were trained with, of ImageNet.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalisation(
    mean: Any, std: Any, channels: int, device: str, path: Path
) -> Callable[[Tensor], Tensor]:
    """(images - mean) / std of images (N, channels, H, W) in [0, 1] on `device`.

    Args:
        mean, std: as a file names them: `channels` numbers each.
        path: of the file, for errors.

    Raises:
        ModelRefused: they are not so many numbers, or a deviation is not positive.
    """
    try:
        means, stds = (
            torch.tensor(each).float().reshape(1, channels, 1, 1).to(device) for each in (mean, std)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelRefused(
            f"{path} has the image mean {mean} and deviation {std}, but {channels} numbers are"
            " needed of each; fetch it again"
        ) from error
    if not (stds > 0).all():
        raise ModelRefused(f"{path} has the image deviation {std}, which must be positive")
    return lambda images: (images - means) / stds
