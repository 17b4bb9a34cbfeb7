"""Whether the pseudo-healthy image is one: what it keeps of healthy images, and what it heals.

After Bercea et al. (normative representation learning; RQI and AHI of github.com/ci-ber/GenAI_UAD),
with lesions that were planted, so that the healthy original is known. The two are read together: a
copy of its input restores all and heals nothing, and a blur heals much and restores little.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.diversity import WINDOW_SIDE, ssim_maps
from gen.metrics.weighted import Floats


def restoration(originals: Tensor, restored: Tensor) -> Floats:
    """SSIM (N,) of healthy images and what was made of them; 1 is the same.

    Wang et al. 2004, equation 13, the mean over an 11-pixel Gaussian window, of grey levels in
    [0, 1].

    Args:
        originals: (N, 1, S, S) in [-1, 1]; S is 11 at least.
        restored: the same shape.

    Raises:
        InvalidInput: the shapes differ, or the images are too small.
    """
    _check(originals, restored)
    luminance, structure = ssim_maps(originals.float() / 2 + 0.5, restored.float() / 2 + 0.5)
    similarity: Floats = (luminance * structure).mean((1, 2, 3)).double().numpy()
    return similarity


def healing(
    originals: Tensor, lesioned: Tensor, restored: Tensor, masks: NDArray[np.bool_]
) -> Floats:
    """The share (N,) of each planted lesion that is gone.

    1 - d(restored, original) / d(lesioned, original), d the mean absolute difference within the
    mask; what is further from the original than the lesion was counts as 0.

    Args:
        originals: (N, 1, S, S) in [-1, 1], before the lesions.
        lesioned, restored: the same shape.
        masks: (N, S, S), each with a pixel that the lesion changed.

    Raises:
        InvalidInput: the shapes differ, or a lesion changes nothing.
    """
    _check(originals, lesioned)
    _check(originals, restored)
    original, before, after = (
        each[:, 0].double().numpy() for each in (originals, lesioned, restored)
    )
    lesion = (np.abs(before - original) * masks).sum((1, 2))
    if not lesion.all():
        raise InvalidInput(
            f"{(lesion == 0).sum()} of {len(lesion)} lesions change nothing within their masks, so"
            " that nothing can be healed; leave them out"
        )
    left = (np.abs(after - original) * masks).sum((1, 2))
    healed: Floats = np.clip(1 - left / lesion, 0, 1)
    return healed


def _check(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[-2:]) < WINDOW_SIDE:
        raise InvalidInput(
            f"the images have the shapes {tuple(first.shape)} and {tuple(second.shape)}, but both"
            f" must be (N, 1, S, S) with S at least {WINDOW_SIDE}; resize them"
        )
