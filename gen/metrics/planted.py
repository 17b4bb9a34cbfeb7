"""How many copies would be found? Training images, altered as copies are, slipped in to be found.

Without it a low rate of suspected copies may as well be a blind detector.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics import sensitivity
from gen.metrics.calibration import Calibration, flag, rate_of
from gen.metrics.copies import TrainingIndex, describe_both_ways, match
from gen.metrics.intervals import Estimate

SHIFT, CROP = 0.05, 0.9  # of the side
GAMMA, CONTRAST, BRIGHTNESS = (0.7, 1.4), (0.7, 1.3), (-0.1, 0.1)
QUALITY = (50, 75)
GREY_LEVELS = 8.0  # standard deviation of noise

Alteration = Callable[[Tensor, np.random.Generator], Tensor]
"""(images (N, 1, S, S) uint8, generator) -> the same shape and type, each altered by its draw."""


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Left for right."""
    return images.flip(-1)


def translate(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Moved by up to 5 % of the side each way; black moves in."""
    side = images.shape[-1]
    reach = int(SHIFT * side)
    padded = F.pad(images, (reach,) * 4)
    corners = rng.integers(0, 2 * reach + 1, (len(images), 2)).tolist()
    moved = [x[:, y : y + side, z : z + side] for x, (y, z) in zip(padded, corners, strict=True)]
    return torch.stack(moved)


def crop(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Nine tenths of the side, anywhere, enlarged to the whole."""
    side = images.shape[-1]
    kept = round(CROP * side)
    corners = rng.integers(0, side - kept + 1, (len(images), 2)).tolist()
    cut = [x[:, y : y + kept, z : z + kept] for x, (y, z) in zip(images, corners, strict=True)]
    return _to_uint8(F.interpolate(torch.stack(cut).float(), (side, side), mode="bicubic"))


def tone(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Gamma, contrast and brightness, whites and blacks clipped."""
    gamma, contrast, brightness = (
        torch.from_numpy(rng.uniform(*limits, (len(images), 1, 1, 1)))
        for limits in (GAMMA, CONTRAST, BRIGHTNESS)
    )
    return _to_uint8((((images / 255) ** gamma - 0.5) * contrast + 0.5 + brightness) * 255)


def jpeg(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Through JPEG of quality 50 to 75."""
    losses = 100 - rng.integers(QUALITY[0], QUALITY[1] + 1, len(images))
    pairs = zip(images.split(1), losses, strict=True)
    return torch.cat([sensitivity.jpeg(image, int(loss)) for image, loss in pairs])


def noise(images: Tensor, rng: np.random.Generator) -> Tensor:
    """White noise of 8 grey levels."""
    return sensitivity.noise(images, GREY_LEVELS, int(rng.integers(2**31)))


def everything(images: Tensor, rng: np.random.Generator) -> Tensor:
    """All of the others, one after another."""
    for alter in (flip, crop, translate, tone, noise, jpeg):
        images = alter(images, rng)
    return images


ALTERATIONS: Mapping[str, Alteration] = {
    "flip": flip,
    "translation": translate,
    "crop": crop,
    "tone": tone,
    "jpeg": jpeg,
    "noise": noise,
    "everything": everything,
}


@dataclass(frozen=True)
class Recall:
    """Of planted copies: the share `flagged`, and the share matched to the image they are `of`.

    The second may be lower though nothing was missed, where a training set holds one image twice.
    """

    flagged: Estimate
    of: Estimate


def planted_recall(
    images: Tensor,
    rows: Sequence[int],
    index: TrainingIndex,
    calibration: Calibration,
    encoder: Callable[[Tensor], Tensor],
    seed: int = 0,
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, Recall]:
    """Recall by kind of alteration, of copies of the same training images.

    Args:
        images: training images (K, 1, S, S) uint8 that are copied.
        rows: K, which of the index they are.
        index: of the training set.
        calibration: the threshold.
        encoder: which the index's features are of.
        seed: of each alteration.
        report: told how many more copies were looked for.

    Raises:
        InvalidInput: there is no image, or not a row for each.
    """
    if not len(images) or len(images) != len(rows):
        raise InvalidInput(
            f"there are {len(images)} images and {len(rows)} rows, but copies are made of at least"
            " one image, each of which is a row of the index"
        )
    found = {}
    for name, alter in ALTERATIONS.items():
        copies = alter(images, np.random.default_rng(seed))
        matches = match(describe_both_ways(copies, encoder), index, report=report)
        flagged = flag(matches, calibration).flagged
        found[name] = Recall(rate_of(flagged), rate_of(matches.rows == np.asarray(rows)))
    return found


def _to_uint8(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
