"""How unlike each other the images of one group are: of one prompt, or of one class.

A generator that repeats itself can satisfy every classifier. Three figures show it: structural
similarity of pairs of images, distances of pairs of features, and the effective number of
different features. All speak of one set alone; the real images' own figure stands beside them,
the Vendi score's from as many images, since it grows with their number.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.intervals import MIN_COUNT, Estimate, Features, content_order

# Wang et al. 2003: the share of each scale, halved in size from one to the next
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01**2, 0.03**2  # of pixels in [0, 1]
WINDOW_SIDE, WINDOW_DEVIATION = 11, 1.5
MIN_SIDE = WINDOW_SIDE * 2 ** (len(SCALE_WEIGHTS) - 1)
BATCH = 16  # pairs; 16 of 256 pixels hold about 40 MB

Pairs = NDArray[np.intp]
"""Two different rows each, (P, 2)."""


def ms_ssim(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Multi-scale structural similarity of pairs (Wang et al. 2003, equation 7); 1 is the same.

    Args:
        first: (N, 1, S, S) uint8; S is 176 at least, for the window to fit the fifth scale.
        second: the same shape.

    Returns:
        (N,) in [0, 1]; a scale where contrasts are opposed counts as 0.

    Raises:
        InvalidInput: the shapes differ, or the images are too small.
    """
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[-2:]) < MIN_SIDE:
        raise InvalidInput(
            f"the images have the shapes {tuple(first.shape)} and {tuple(second.shape)}, but both"
            f" must be (N, 1, S, S) with S at least {MIN_SIDE}; resize them"
        )
    parts = [
        _ms_ssim(x.float() / 255, y.float() / 255)
        for x, y in zip(first.split(BATCH), second.split(BATCH), strict=True)
    ]
    return torch.cat(parts).double().numpy()


def _ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    similarity = torch.ones(len(first))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
        luminance, structure = ssim_maps(first, second)
        if scale == len(SCALE_WEIGHTS) - 1:  # luminance counts at the coarsest scale only
            structure = luminance * structure
        similarity *= structure.mean((1, 2, 3)).clamp_min(0) ** weight
    return similarity


def ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure (Wang et al. 2004, equation 13), (N, 1, S, S)."""
    mean_x, mean_y, xx, yy, xy = _blur(
        torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 1)
    ).chunk(5)
    products = mean_x.square() + mean_y.square()
    variances, covariance = xx + yy - products, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + LUMINANCE_CONSTANT) / (products + LUMINANCE_CONSTANT)
    return luminance, (2 * covariance + CONTRAST_CONSTANT) / (variances + CONTRAST_CONSTANT)


def _blur(images: Tensor) -> Tensor:
    """Mean of images (N, 1, S, S) under the Gaussian window, (N, 1, S - 10, S - 10)."""
    distance = torch.arange(WINDOW_SIDE) - WINDOW_SIDE // 2
    window = torch.exp(-distance.square() / (2 * WINDOW_DEVIATION**2))
    taps = (window / window.sum()).expand(len(images), 1, 1, -1).contiguous()
    # images as channels of one: grouped convolutions are ten times as fast on a CPU
    across = F.conv2d(images.transpose(0, 1), taps, groups=len(images))
    down = F.conv2d(across, taps.transpose(2, 3).contiguous(), groups=len(images))
    return down.transpose(0, 1)


def pairs_within(names: Sequence[str], max_pairs: int, seed: int = 0) -> Pairs:
    """Pairs (P, 2) of rows that share a name, such as a prompt; at most `max_pairs`, at random.

    Every name gives as many as any other, as far as it has them.
    """
    rng = np.random.default_rng(seed)
    rows = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    shared = [np.array(rows[name]) for name in sorted(rows) if len(rows[name]) > 1]
    chosen = [
        rng.permutation(shared[i][choose_pairs(len(shared[i]), max_pairs, seed)])
        for i in rng.permutation(len(shared))
    ]
    # the first pair of each, then the second of each
    turns = [pairs[turn] for turn in range(max_pairs) for pairs in chosen if turn < len(pairs)]
    return np.array(turns[:max_pairs], np.intp).reshape(-1, 2)


def mean_ms_ssim(images: Tensor, pairs: Pairs) -> Estimate:
    """Mean similarity of pairs (P, 2) of images (N, 1, S, S) uint8, of three images at least."""
    return pair_mean(pairs, _in_batches(lambda p: ms_ssim(images[p[:, 0]], images[p[:, 1]]), pairs))


def group_ms_ssim(images: Tensor, max_pairs: int = 500, seed: int = 0) -> Estimate:
    """Mean similarity of pairs of a group's images; higher is less diverse.

    Args:
        images: (N, 1, S, S) uint8, see `ms_ssim`.
        max_pairs: all pairs if there are no more, else so many of them.
        seed: of the choice of pairs. The order of the images changes nothing.

    Returns:
        The mean over pairs; its interval covers that other images of the group might have been
        drawn, see `pair_mean`.

    Raises:
        InvalidInput: there are fewer than four images, or they are too small.
    """
    _check_count(len(images))
    pairs = content_order(images.numpy())[choose_pairs(len(images), max_pairs, seed)]
    return mean_ms_ssim(images, pairs)


@dataclass(frozen=True)
class Spread:
    """Mean distances of pairs of a group's features: 1 - cosine, and Euclidean."""

    cosine: Estimate
    euclidean: Estimate


def feature_spread(features: Features, max_pairs: int = 20_000, seed: int = 0) -> Spread:
    """How far apart features (N, D) of a group lie; pairs and interval as in `group_ms_ssim`.

    Raises:
        InvalidInput: there are fewer than four images, or features that are zero.
    """
    _check_count(len(features))
    directions = _directions(features)
    pairs = content_order(features)[choose_pairs(len(features), max_pairs, seed)]

    def cosine(p: Pairs) -> NDArray[np.float64]:
        return 1 - np.einsum("nd,nd->n", directions[p[:, 0]], directions[p[:, 1]])

    def euclidean(p: Pairs) -> NDArray[np.float64]:
        return np.linalg.norm(features[p[:, 0]] - features[p[:, 1]], axis=1)

    return Spread(*(pair_mean(pairs, _in_batches(each, pairs)) for each in (cosine, euclidean)))


def vendi_score(features: Features) -> float:
    """Effective number of different features (N, D): 1 if all are alike, N if all are orthogonal.

    exp of the entropy of the eigenvalues of K / N, K the cosines (Friedman & Dieng 2023). It is at
    most the smaller of N and D and grows with N: compare sets of one size.

    Raises:
        InvalidInput: there are no features, or some are zero.
    """
    directions = _directions(features)
    # U U' and U'U have the same eigenvalues but zero
    rows = torch.from_numpy(directions)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    shares = torch.linalg.eigvalsh(gram / len(rows)).clamp_min(0).numpy()
    return float(
        np.exp(-np.sum(shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))))
    )


def choose_pairs(count: int, max_pairs: int, seed: int) -> Pairs:
    """All pairs of `count` rows, or `max_pairs` of them at random, without repetition."""
    total = count * (count - 1) // 2
    if total <= max_pairs:
        numbers = np.arange(total)
    else:
        numbers = np.random.default_rng(seed).choice(total, max_pairs, replace=False)
    # pairs (j, i) with i < j are numbered row by row of the lower triangle: j (j - 1) / 2 + i
    later = np.floor((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.intp)
    return np.stack([numbers - later * (later - 1) // 2, later], 1)


def pair_mean(pairs: Pairs, values: NDArray[np.float64]) -> Estimate:
    """The mean of values (P,) of pairs of images, with its interval as a mean over images.

    Pairs that share an image are no independent witnesses: six pairs of four images are four
    images. The variance adds the products of residuals of all pairs that share an image
    (Aronow et al. 2015), is never below that of independent pairs, is enlarged for few images as
    by the jackknife that leaves one out, and taken with the t distribution.

    Args:
        pairs: (P, 2), of three images at least.
        values: (P,).
    """
    residuals = values - values.mean()
    per_image = np.bincount(pairs.ravel(), np.repeat(residuals, 2))
    independent = np.square(residuals).sum()
    variance = max(independent, np.square(per_image).sum() - independent) / len(values) ** 2
    count = len(np.unique(pairs))
    variance *= count * (count - 1) / (count - 2) ** 2
    reach = float(stats.t.ppf(0.975, count - 1) * np.sqrt(variance))
    mean = float(values.mean())
    return Estimate(mean, mean - reach, mean + reach)


def _in_batches(
    measure: Callable[[Pairs], NDArray[np.float64]], pairs: Pairs, batch_size: int = 256
) -> NDArray[np.float64]:
    starts = range(0, len(pairs), batch_size)
    return np.concatenate([measure(pairs[start : start + batch_size]) for start in starts])


def _directions(features: Features) -> Features:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not len(features) or not lengths.all():
        raise InvalidInput(
            f"{len(features)} features hold {int(np.sum(lengths == 0))} that are zero, which have"
            " no direction; leave these out, or use another encoder"
        )
    return np.asarray(features, np.float64) / lengths


def _check_count(count: int) -> None:
    if count < MIN_COUNT:
        raise InvalidInput(
            f"the group holds {count} images, but its spread needs at least {MIN_COUNT}; give more"
        )
