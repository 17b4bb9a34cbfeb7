"""What pipelines return, and how latents and pixels become it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gen.anomaly.regions import Mask, Region
from gen.augmentation.operations import Operation
from gen.errors import InvalidInput

OutputType = Literal["pil", "np", "pt", "latent"]


@dataclass
class ChestXrays(BaseOutput):
    """`images`: a list of PIL images; an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1]; or
    latents (N, c, h, w), as `output_type` asked.

    `minority_reached`: if a level was asked for, the quantile in [0, 1] that each image reached.
    """

    images: Any
    minority_reached: list[float] | None = None


@dataclass
class LargeImages(BaseOutput):
    """`images`: one PIL image in a list; an array (1, H, W, 3) or tensor (1, 3, H, W) in [0, 1].

    `minority_reached`: if a level was asked for, the quantile in [0, 1] that the image reached, the
    median of its places; see `pipelines.large_rarity.level_reached`.
    """

    images: Any
    minority_reached: list[float] | None = None


def check_output_type(output_type: str) -> None:
    """Raise InvalidInput for a type that is not one of `OutputType`."""
    if output_type not in get_args(OutputType):
        raise InvalidInput(
            f"output_type is {output_type!r}, but must be one of {', '.join(get_args(OutputType))}"
        )


def present(images: Tensor, output_type: str) -> Any:
    """Images (N, C, H, W) in [0, 1] as `output_type`; one channel becomes a grey picture."""
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).float().cpu().numpy()
    if output_type == "np":
        return array
    pixels = np.round(array * 255).astype(np.uint8)
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]


@dataclass(frozen=True, eq=False)
class AnomalyMap:
    """Where a picture departs from healthy anatomy, on the picture's own pixels.

    Args:
        map: (H, W) float32, at least 0; larger is less healthy; 0 outside the body.
        healthy: (H, W) float32 in [0, 1]: the picture as it would be without disease.
        mask: (H, W) bool: where the map exceeds the threshold, without small regions.
        regions: of the mask, the most unusual first; boxes in pixels of the picture.
        score: of the whole picture, comparable within a model and a method.
        threshold: of the mask.
    """

    map: NDArray[np.float32]
    healthy: NDArray[np.float32]
    mask: NDArray[np.bool_]
    regions: tuple[Region, ...]
    score: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Augmented:
    """A training picture made from another, or from words, with the mask that belongs to it.

    Args:
        image: (H, W) float32 in [0, 1], on the pixels of the picture it was made from.
        mask: (H, W) bool: where a lesion was inserted; nothing, where one was removed; the given
            one, moved along, of classical steps; None where there is no mask.
        operation: what was done.
        prompt: under which words; "" of classical steps.
        change: mean absolute change under the mask that was painted, in [0, 1], before classical
            steps: little of it says that nothing much was inserted or removed. None elsewhere.
    """

    image: NDArray[np.float32]
    mask: Mask | None
    operation: Operation
    prompt: str
    change: float | None = None
