"""Which figure moves when images get worse, and how far: the audit's own calibration.

Real images are harmed in known ways, more and more; a figure that is said to see the harm must
move one way only. What does not move says nothing about that harm.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput

Harm = Callable[[Tensor, float, int], Tensor]
"""(images (N, 1, S, S) uint8, strength >= 0, seed) -> images of the same shape and type."""


def blur(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Gaussian blur of `strength` pixels' standard deviation."""
    if strength == 0:
        return images
    reach = max(1, round(3 * strength))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-offsets.square() / (2 * strength**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return _to_uint8(F.conv2d(rows, kernel.view(1, 1, -1, 1)))


def noise(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    """White noise of `strength` grey levels' standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return _to_uint8(images + strength * torch.randn(images.shape, generator=generator))


def jpeg(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    """JPEG at quality 100 - `strength`."""
    return torch.stack([_through_jpeg(image[0], 100 - round(strength)) for image in images])[
        :, None
    ]


def contrast(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Each image drawn towards its mean by the fraction `strength`."""
    mean = images.float().mean(dim=(1, 2, 3), keepdim=True)
    return _to_uint8(mean + (1 - strength) * (images - mean))


def mode_dropping(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    """The last fraction `strength` of the images replaced by repetitions of the others.

    Sort the images by kind, and whole kinds go first.
    """
    kept = max(1, round((1 - strength) * len(images)))
    return images[torch.arange(len(images)) % kept]


HARMS: Mapping[str, Harm] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "contrast": contrast,
    "mode dropping": mode_dropping,
}


def swap_labels(labels: NDArray[np.bool_], strength: float, seed: int = 0) -> NDArray[np.bool_]:
    """Labels of which a random fraction `strength` is turned round."""
    swapped = labels.copy()
    chosen = np.random.default_rng(seed).permutation(len(labels))[: round(strength * len(labels))]
    swapped[chosen] = ~swapped[chosen]
    return swapped


@dataclass(frozen=True)
class Response:
    """How one figure answers to growing harm: `monotonic` is Spearman's rank correlation."""

    values: tuple[float, ...]
    monotonic: float


def response(strengths: Sequence[float], values: Sequence[float]) -> Response:
    """Rank correlation of a figure with the strength of a harm, -1 to 1; 0 if it never moves.

    Raises:
        InvalidInput: there are fewer than three strengths, or not a value for each.
    """
    if len(strengths) < 3 or len(strengths) != len(values):
        raise InvalidInput(
            f"there are {len(strengths)} strengths and {len(values)} values, but monotony needs at"
            " least three of each"
        )
    if np.ptp(values) == 0:
        return Response(tuple(values), 0.0)
    return Response(tuple(map(float, values)), float(spearmanr(strengths, values).statistic))


def _to_uint8(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def _through_jpeg(image: Tensor, quality: int) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(image.numpy()).save(stream, format="JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream, formats=("JPEG",))))
