"""How rare images are among real ones, by the distances of their features.

AvgkNN and LOF as minority guidance reports them (Um et al. 2024, arXiv 2301.12334, section 5),
and the rarity score of Han et al. 2023 (arXiv 2206.08549, equation 4). Rarer is larger by each.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.intervals import Features
from gen.metrics.prdc import CHUNK, centred, squared_distances, squared_radii

K_NEAREST, K_OUTLIER, K_RARITY = 5, 20, 3  # as published

Values = NDArray[np.float64]


def average_knn(images: Features, real: Features, k: int = K_NEAREST) -> Values:
    """Mean distance (N,) of each of features (N, D) to its k nearest of real ones (M, D).

    Raises:
        InvalidInput: there are too few real images, or the dimensions differ.
    """
    ours, theirs = _pair(images, real, k)
    nearest = [
        squared_distances(rows, theirs).clamp_min(0).topk(k, largest=False).values.sqrt().mean(1)
        for rows in ours.split(CHUNK)
    ]
    return _values(nearest)


def local_outlier_factor(images: Features, real: Features, k: int = K_OUTLIER) -> Values:
    """How much sparser real images (M, D) lie around each of (N, D) than around these neighbours.

    Breunig et al. 2000; about 1 amid real images, larger away from them.

    Raises:
        InvalidInput: there are too few real images, or the dimensions differ.
    """
    from sklearn.neighbors import LocalOutlierFactor

    _pair(images, real, k)
    fitted = LocalOutlierFactor(n_neighbors=k, novelty=True).fit(np.asarray(real, np.float64))
    scores: Values = -fitted.score_samples(np.asarray(images, np.float64))
    return scores


def rarity_score(images: Features, real: Features, k: int = K_RARITY) -> Values:
    """The smallest k-nearest-neighbour ball of a real image that holds each image, (N,).

    NaN where no ball does: that image is not known to be real enough to be rare.

    Raises:
        InvalidInput: there are too few real images, or the dimensions differ.
    """
    ours, theirs = _pair(images, real, k)
    reach = squared_radii(theirs, k)
    smallest = []
    for rows in ours.split(CHUNK):
        inside = squared_distances(rows, theirs) <= reach
        radii = torch.where(inside, reach.sqrt(), float("inf")).min(1).values
        smallest.append(torch.where(radii.isinf(), float("nan"), radii))
    return _values(smallest)


def _pair(images: Features, real: Features, k: int) -> tuple[Tensor, Tensor]:
    if len(real) <= k or not len(images) or images.shape[1] != real.shape[1]:
        raise InvalidInput(
            f"the features have the shapes {images.shape} and {real.shape}, but there must be more"
            f" than k = {k} real images, and the same number of columns"
        )
    return centred(images, real)


def _values(parts: list[Tensor]) -> Values:
    values: Values = torch.cat(parts).numpy().astype(np.float64)
    return values
