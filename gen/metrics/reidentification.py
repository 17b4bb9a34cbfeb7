"""Are patients recognised in images made from their own prompts? CheXGenBench's protocol.

For each prompt of the training set many images are made from different seeds, and compared with
the real image that the prompt was written for (Dutt et al. 2025, arXiv 2505.10496). The mean says
what to expect of one image, the extreme what somebody finds who asks often enough.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.features import features_of
from gen.metrics.intervals import Estimate, bootstrap_mean

PairScore = Callable[[Tensor, Tensor], Tensor]
"""(images (K, 1, S, S) uint8, others (K, 1, S, S) uint8) -> (K,), higher: the same patient."""


@dataclass(frozen=True)
class PromptRisk:
    """One training image against all images made from its prompt.

    Scores are those of the re-identifier; pixel distances are in [0, 1], where 1 is black against
    white; feature distances are in the encoder's unit.
    """

    mean_score: float
    max_score: float
    mean_pixel_distance: float
    min_pixel_distance: float
    mean_feature_distance: float
    min_feature_distance: float


def pixel_distances(real: Tensor, synthetic: Tensor) -> NDArray[np.float64]:
    """L2 / sqrt(n) of each image's n pixels, in units of the whole grey range.

    Args:
        real: (1, S, S) uint8.
        synthetic: (K, 1, S, S) uint8.

    Returns:
        (K,) in [0, 1].
    """
    # before the difference: 0 - 255 is 1 in uint8
    difference = (synthetic.double() - real.double()) / 255
    distances: NDArray[np.float64] = difference.square().flatten(1).mean(1).sqrt().numpy()
    return distances


def feature_distances(
    real: NDArray[np.floating], synthetic: NDArray[np.floating]
) -> NDArray[np.float64]:
    """L2 / sqrt(d) of features (D,) to each of (K, D): (K,)."""
    distances: NDArray[np.float64] = np.sqrt(np.square(synthetic - real).mean(1))
    return distances


def prompt_risk(
    real: Tensor, synthetic: Tensor, score: PairScore, encoder: Callable[[Tensor], Tensor]
) -> PromptRisk:
    """Compare one real image with what its prompt made.

    Args:
        real: (1, S, S) uint8.
        synthetic: (K, 1, S, S) uint8, of K seeds.
        score: re-identifies pairs, such as `gen.metrics.aligned.pair_similarity`.
        encoder: images (N, 1, S, S) in [-1, 1] -> features (N, D).

    Raises:
        InvalidInput: there is no image, or one of another shape.
    """
    if not len(synthetic) or synthetic.shape[1:] != real.shape:
        raise InvalidInput(
            f"synthetic has the shape {tuple(synthetic.shape)} for a real image of"
            f" {tuple(real.shape)}, but must be one image or more of that shape; resize them alike"
        )
    scores = score(synthetic, real.expand_as(synthetic)).double().numpy()
    pixels = pixel_distances(real, synthetic)
    features = feature_distances(
        features_of(real[None], encoder)[0], features_of(synthetic, encoder)
    )
    return PromptRisk(
        mean_score=float(scores.mean()),
        max_score=float(scores.max()),
        mean_pixel_distance=float(pixels.mean()),
        min_pixel_distance=float(pixels.min()),
        mean_feature_distance=float(features.mean()),
        min_feature_distance=float(features.min()),
    )


def reidentify(
    real: Iterable[Tensor],
    synthetic: Iterable[Tensor],
    score: PairScore,
    encoder: Callable[[Tensor], Tensor],
    report: Callable[[int], None] = lambda _: None,
) -> list[PromptRisk]:
    """The risk of every prompt; images are taken one prompt at a time.

    Args:
        real: P images (1, S, S) uint8.
        synthetic: P times (K, 1, S, S) uint8; K may differ.
        score: see `prompt_risk`.
        encoder: see `prompt_risk`.
        report: told how many prompts are done.

    Raises:
        InvalidInput: see `prompt_risk`.
        ValueError: there are more of one than of the other.
    """
    risks = []
    for image, made in zip(real, synthetic, strict=True):
        risks.append(prompt_risk(image, made, score, encoder))
        report(1)
    return risks


def mean_risk(risks: Sequence[PromptRisk], patients: Sequence[str]) -> dict[str, Estimate]:
    """The mean of each figure over P prompts, resampled by whose prompts they are.

    Raises:
        InvalidInput: there are fewer than four patients, or not one for each prompt.
    """
    table = [asdict(risk) for risk in risks]
    names = PromptRisk.__dataclass_fields__
    return {
        name: bootstrap_mean(np.array([row[name] for row in table]), patients) for name in names
    }
