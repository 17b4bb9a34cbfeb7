"""Which images are copies of a training image, and how many would be called so by mistake.

Candidates are found by encoder features, as it is and flipped, and by thumbnails, for encoders miss
some; then each is laid over the image (`gen.metrics.aligned`), and the best match is the score.
A threshold is chosen on real images of patients that the training set does not hold: whatever they
share with a training image is no copy.

A rate of zero does not promise that no patient is shown: `gen.metrics.planted` measures which share
of known copies is found.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.aligned import detail, halved, similarity, templates_of
from gen.metrics.features import features_of
from gen.metrics.nearest import nearest
from gen.metrics.side_by_side import side_by_side

BY_FEATURES, BY_THUMBNAIL = 16, 8  # candidates of each look-up: two and four of them an image
ALIGNED = 6  # candidates laid over at full size, after all were at half
BATCH = 64
_CROP = 0.05  # off each side: the middle of a crop to 90 %


@dataclass(frozen=True)
class Described:
    """Images (N, 1, S, S) uint8 with their features (N, D) as they are and flipped."""

    images: Tensor
    features: NDArray[np.floating]
    flipped: NDArray[np.floating]


def describe_both_ways(
    images: Tensor,
    encoder: Callable[[Tensor], Tensor],
    report: Callable[[int], None] = lambda _: None,
) -> Described:
    """Encode images and their flips, since encoders of radiographs know left from right."""
    return Described(
        images,
        features_of(images, encoder, report=report),
        features_of(images.flip(-1), encoder, report=report),
    )


@dataclass(frozen=True)
class TrainingIndex:
    """A training set as copies are looked up in it. It holds patients' images: do not publish it.

    `details` (M, 64, 64) float16; `features` (M, D) and `thumbnails` (2 M, 144), whole then
    middles, of unit length; `centre` and `spread` (D,) standardise features; `patients` M names.
    """

    details: Tensor
    features: Tensor
    thumbnails: Tensor
    centre: Tensor
    spread: Tensor
    patients: tuple[str, ...]

    def rows_of(self, patient: str | None) -> list[int]:
        """The rows of one patient's images."""
        return [] if patient is None else self._rows.get(patient, [])

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows = defaultdict(list)
        for row, name in enumerate(self.patients):
            rows[name].append(row)
        return dict(rows)

    def standardise(self, features: NDArray[np.floating]) -> Tensor:
        """Features (N, D) as directions from the training set's mean, each axis in its spread."""
        values = torch.from_numpy(features).float()
        return F.normalize((values - self.centre) / self.spread)


def index_training(
    images: Tensor, features: NDArray[np.floating], patients: Sequence[str]
) -> TrainingIndex:
    """Prepare training images (M, 1, S, S) uint8 and their features (M, D) for look-ups.

    Raises:
        InvalidInput: there is no image, or not a row of features and a patient for each.
    """
    if not len(images) or {len(features), len(patients)} != {len(images)}:
        raise InvalidInput(
            f"there are {len(images)} training images, {len(features)} rows of features and"
            f" {len(patients)} patients; give one of each for every image, and at least one image"
        )
    values = torch.from_numpy(features).float()
    # an axis that does not vary tells nothing: any divisor will do
    spread = values.std(0, correction=0).clamp_min(1e-6)
    parts = [(detail(each).half(), *_thumbnails(each)) for each in images.split(BATCH)]
    details, whole, middles = (torch.cat(each) for each in zip(*parts, strict=True))
    centred = F.normalize((values - values.mean(0)) / spread)
    thumbnails = torch.cat([whole, middles])
    return TrainingIndex(details, centred, thumbnails, values.mean(0), spread, tuple(patients))


@dataclass(frozen=True)
class Matches:
    """For each of N images the most similar training image: its row, and the similarity to it."""

    scores: NDArray[np.float64]
    rows: NDArray[np.intp]


@torch.no_grad()
def match(
    described: Described,
    index: TrainingIndex,
    patients: Sequence[str] | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Matches:
    """Find the most similar training image of each.

    Args:
        described: N images.
        index: the training set.
        patients: whose the images are, N; images of the same patient are no match. None: of nobody.
        report: told how many more images are done.
    """
    names: Sequence[str | None] = patients or [None] * len(described.images)
    own = [frozenset(index.rows_of(name)) for name in names]
    candidates = _candidates(described, index)

    def look_up(start: int) -> list[tuple[float, int]]:
        batch = slice(start, start + BATCH)
        templates = templates_of(described.images[batch])
        found = []
        for i, near in enumerate(candidates[batch]):
            others = [row for row in near.unique().tolist() if row not in own[start + i]]
            found.append(_best([each[i : i + 1] for each in templates], others, index))
        return found

    best: list[tuple[float, int]] = []
    with side_by_side() as pool:
        for found in pool.map(look_up, range(0, len(candidates), BATCH)):
            best += found
            report(len(found))
    scores, rows = zip(*best, strict=True)
    return Matches(np.array(scores, np.float64), np.array(rows, np.intp))


def _candidates(described: Described, index: TrainingIndex) -> Tensor:
    """Rows (N, K) of training images worth a closer look, some of them twice."""
    ways = [described.features, described.flipped]
    found = [nearest(index.standardise(way), index.features, BY_FEATURES) for way in ways]
    thumbnails = torch.cat([_thumbnails(each)[0] for each in described.images.split(BATCH)])
    flipped = thumbnails.unflatten(1, (12, 12)).flip(-1).flatten(1)
    for part in index.thumbnails.split(len(index.patients)):
        found += [nearest(way, part, BY_THUMBNAIL) for way in (thumbnails, flipped)]
    return torch.cat(found, 1)


def _best(templates: list[Tensor], others: list[int], index: TrainingIndex) -> tuple[float, int]:
    """The highest similarity among rows and whose it is, -1 of none; templates are of one image."""
    if not others:
        return -1.0, -1
    rows = torch.tensor(others)
    details = index.details[rows][None].float()
    glance = similarity([halved(each) for each in templates], halved(details))[0]
    kept = glance.topk(min(ALIGNED, len(rows))).indices
    scores = similarity(templates, details[:, kept])[0]
    best = int(scores.argmax())
    return float(scores[best]), int(rows[kept[best]])


def _thumbnails(images: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse structure (N, 144) of whole images and of their middles, each of unit length."""
    cut = round(_CROP * images.shape[-1])
    middles = images[..., cut : images.shape[-2] - cut, cut : images.shape[-1] - cut]
    small = [halved(detail(each, 24, 2.0, 6.0, 6.0)).flatten(1) for each in (images, middles)]
    whole, middle = (F.normalize(each - each.mean(1, keepdim=True)) for each in small)
    return whole, middle
