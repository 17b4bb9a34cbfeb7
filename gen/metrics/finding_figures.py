"""How well classifiers of several findings do: by class, by group of people, and how fairly.

Children and adults come from different sources, and every classifier tells them apart; so figures
of a class are taken among children and among adults, and their mean is what is reported. Otherwise
a class that only adults have would seem well told by age alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.data.captions import NORMAL, Labels
from gen.metrics.anomaly import auroc
from gen.metrics.crossed import Draws, draw_crossed
from gen.metrics.groups import groups_of
from gen.metrics.weighted import Floats, ratio_of
from gen.models.cxr_classifier import AGE_BANDS

Stated = NDArray[np.floating]
"""(N, K): 1 shown, 0 not shown, nan not spoken of."""
Key = tuple[str, ...]

AUROC, PRECISION, ACCURACY = "auroc", "average_precision", "accuracy"
FIGURES = (AUROC, PRECISION, ACCURACY)
MISSED = "missed"  # the share of the ill whom the classifier calls normal
# named beforehand: the widest of many gaps would be wide by chance
CONTRASTS = {
    "sex": ("female", "male"),
    "age group": ("child", "adult"),
    "age": ("over 60", "under 40"),
}
MIN_IN_GROUP = 5  # images with and without a class, for its figures within a group


@dataclass(frozen=True)
class Judged:
    """N held-out images and what is known of them."""

    labels: Sequence[Labels]
    patients: Sequence[str]
    stated: Stated
    classes: tuple[str, ...]

    def draw(self, num_seeds: int, num_resamples: int = 1000, seed: int = 0) -> Draws:
        """Draws of patients, children and adults apart, and of seeds."""
        _, codes = np.unique(np.array(self.patients), return_inverse=True)
        return draw_crossed(self.populations, codes, num_seeds, num_resamples, seed)

    @property
    def populations(self) -> NDArray[np.intp]:
        """1 for a child (N,)."""
        return np.array([each.child for each in self.labels], np.intp)

    def members(self) -> dict[str, NDArray[np.bool_]]:
        """By name of a group of people, who belongs to it (N,)."""
        named = [people_of(each) for each in self.labels]
        names = [name for pair in CONTRASTS.values() for name in pair]
        return {name: np.array([name in each for each in named]) for name in names}


def people_of(labels: Labels) -> set[str]:
    """The groups of people that one belongs to, as `CONTRASTS` names them."""
    found = groups_of(labels)
    names = {name for axis in ("sex", "age group") for name in found.get(axis, ())}
    if labels.age is not None and not labels.child:
        names |= {name for name, (low, high) in AGE_BANDS.items() if low <= labels.age < high}
    return names


def average_precision(scores: Floats, shown: NDArray[np.bool_], weights: Floats) -> Floats:
    """The sum of precisions weighted by the rise of recall, (R,); equal scores are one threshold.

    Args:
        scores: (N,).
        shown: (N,).
        weights: (R, N), how often each image counts; each draw holds one that is shown.
    """
    _, place = np.unique(-scores, return_inverse=True)
    ends = np.bincount(place).cumsum() - 1
    order = np.argsort(place, kind="stable")
    hits = (weights * shown)[:, order].cumsum(1)[:, ends]
    every = weights[:, order].cumsum(1)[:, ends]
    precision = hits / np.maximum(every, np.finfo(float).tiny)
    rise = np.diff(hits, axis=1, prepend=0) / hits[:, -1:]
    areas: Floats = (precision * rise).sum(1)
    return areas


def best_threshold(scores: NDArray[np.floating], shown: NDArray[np.bool_]) -> float:
    """Where sensitivity and specificity sum to most (Youden 1950); 0.5 if one kind is missing."""
    if shown.all() or not shown.any():
        return 0.5
    levels = np.unique(scores)
    sensitivity = (scores[shown][:, None] >= levels).mean(0)
    specificity = (scores[~shown][:, None] < levels).mean(0)
    best = int(np.argmax(sensitivity + specificity))
    # between the values of the images it was found on, not on one of them
    below = levels[best - 1] if best else levels[best]
    return float((levels[best] + below) / 2)


def thresholds_of(probabilities: NDArray[np.floating], stated: Stated) -> Floats:
    """The best threshold (S, K) of each seed and class, of images that are not judged by them.

    Args:
        probabilities: (S, M, K).
        stated: (M, K).
    """
    found = np.empty((probabilities.shape[0], probabilities.shape[2]))
    for (number, column), _ in np.ndenumerate(found):
        known = ~np.isnan(stated[:, column])
        shown = stated[known, column] == 1
        found[number, column] = best_threshold(probabilities[number, known, column], shown)
    return found


def arm_figures(
    probabilities: NDArray[np.floating], thresholds: Floats, judged: Judged, draws: Draws
) -> dict[Key, Floats]:
    """Every figure of one kind of classifier in every draw (1 + R,), means over seeds.

    Keys are ("macro", figure), ("classes", class, figure), ("groups", group, "auroc" or "missed")
    and ("fairness", axis, "gap" or "size"): the first group of `CONTRASTS` less the second in
    "missed", and how large that is whatever its sign. A group or an axis without enough images is
    left out.

    Args:
        probabilities: (S, N, K).
        thresholds: (S, K), see `thresholds_of`.
        judged: N images.
        draws: of N images and S seeds.
    """
    everyone = np.ones(len(judged.labels), bool)
    found = _class_figures(probabilities, thresholds, judged, everyone, draws)
    for name in FIGURES:
        columns = [found["classes", each, name] for each in judged.classes]
        found["macro", name] = _mean(np.stack(columns))
    missed = _missed(probabilities, thresholds, judged)
    for group, member in judged.members().items():
        within = _areas_within(probabilities, judged, member, draws)
        if within is not None:
            found["groups", group, AUROC] = within
        if missed is not None and (figure := _missed_of(missed, member, judged, draws)) is not None:
            found["groups", group, MISSED] = figure
    return found | _fairness(found)


def _class_figures(
    probabilities: NDArray[np.floating],
    thresholds: Floats,
    judged: Judged,
    member: NDArray[np.bool_],
    draws: Draws,
) -> dict[Key, Floats]:
    found: dict[Key, Floats] = {}
    above = (probabilities >= thresholds[:, None]).astype(np.float64)
    for column, name in enumerate(judged.classes):
        scores = probabilities[:, :, column].astype(np.float64)
        per_seed: Mapping[str, list[Floats]] = {figure: [] for figure in FIGURES}
        for number in range(len(scores)):
            for figure, answers in (
                (AUROC, scores), (PRECISION, scores), (ACCURACY, above[:, :, column]),
            ):  # fmt: skip
                per_seed[figure].append(
                    within_populations(
                        figure, answers[number], judged.stated[:, column], judged.populations,
                        member, draws.images,
                    )
                )  # fmt: skip
        for figure, values in per_seed.items():
            found["classes", name, figure] = draws.over_seeds(np.stack(values, 1))
    return found


def within_populations(
    figure: str,
    answers: Floats,
    stated: Stated,
    populations: NDArray[np.intp],
    member: NDArray[np.bool_],
    weights: Floats,
) -> Floats:
    """A figure of one class in each draw (R,): the mean over populations that have both kinds.

    Each population weighs as many pairs of an image with the class and one without as it has for
    AUROC, its images with the class for average precision, all its images for accuracy, which is
    the mean of sensitivity and specificity. A draw in which none has both kinds is nan.

    Args:
        figure: one of `FIGURES`.
        answers: (N,) scores; for accuracy 1 where the class is said to be there, else 0.
        stated: (N,) of the class.
        populations: (N,) numbers.
        member: (N,) who counts at all.
        weights: (R, N), how often each image counts.
    """
    total, parts = np.zeros(len(weights)), np.zeros(len(weights))
    for population in np.unique(populations):
        rows = np.flatnonzero(member & ~np.isnan(stated) & (populations == population))
        shown = stated[rows] == 1
        if shown.all() or not shown.any():
            continue
        counts = weights[:, rows]
        own, rest = counts[:, shown].sum(1), counts[:, ~shown].sum(1)
        size = {AUROC: own * rest, PRECISION: own, ACCURACY: own + rest}[figure]
        usable = (own > 0) & (rest > 0)
        value = _value(figure, answers[rows], shown, counts[usable])
        total[usable] += value * size[usable]
        parts[usable] += size[usable]
    return np.divide(total, parts, out=np.full(len(weights), np.nan), where=parts > 0)


def _value(figure: str, answers: Floats, shown: NDArray[np.bool_], weights: Floats) -> Floats:
    if figure == AUROC:
        return auroc(answers, shown)(weights)
    if figure == PRECISION:
        return average_precision(answers, shown, weights)
    own, rest = shown.astype(np.float64), (~shown).astype(np.float64)
    sensitivity = ratio_of(answers * own, own)(weights)
    specificity = ratio_of((1 - answers) * rest, rest)(weights)
    mean: Floats = (sensitivity + specificity) / 2
    return mean


def _areas_within(
    probabilities: NDArray[np.floating], judged: Judged, member: NDArray[np.bool_], draws: Draws
) -> Floats | None:
    """Macro AUROC within a group, of the classes that it has enough images with and without."""
    areas = []
    for column in range(len(judged.classes)):
        stated = judged.stated[:, column]
        if min((stated[member] == value).sum() for value in (0, 1)) < MIN_IN_GROUP:
            continue
        each = [
            within_populations(
                AUROC, scores.astype(np.float64), stated, judged.populations, member, draws.images
            )
            for scores in probabilities[:, :, column]
        ]
        areas.append(draws.over_seeds(np.stack(each, 1)))
    return _mean(np.stack(areas)) if areas else None


def _missed(
    probabilities: NDArray[np.floating], thresholds: Floats, judged: Judged
) -> Floats | None:
    """Who would be sent home (S, N), by the class that nothing was found; None if it is unknown."""
    if NORMAL not in judged.classes:
        return None
    column = judged.classes.index(NORMAL)
    return (probabilities[:, :, column] >= thresholds[:, None, column]).astype(np.float64)


def _missed_of(
    missed: Floats, member: NDArray[np.bool_], judged: Judged, draws: Draws
) -> Floats | None:
    """The share of the ill that are missed: under-diagnosis (Seyyed-Kalantari et al. 2021)."""
    ill = member & (judged.stated[:, judged.classes.index(NORMAL)] == 0)
    if ill.sum() < MIN_IN_GROUP:
        return None
    held = draws.images @ ill
    usable = held > 0
    rates = np.full((len(held), len(missed)), np.nan)
    rates[usable] = (draws.images[usable] @ (missed * ill).T) / held[usable, None]
    return draws.over_seeds(rates)


def _fairness(found: Mapping[Key, Floats]) -> dict[Key, Floats]:
    gaps: dict[Key, Floats] = {}
    for axis, (one, other) in CONTRASTS.items():
        keys = ("groups", one, MISSED), ("groups", other, MISSED)
        if all(key in found for key in keys):
            gap = found[keys[0]] - found[keys[1]]
            gaps["fairness", axis, "gap"] = gap
            gaps["fairness", axis, "size"] = np.abs(gap)
    return gaps


def _mean(values: Floats) -> Floats:
    """The mean of the known values (K, R) in each draw; nan where none is."""
    known = ~np.isnan(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0).sum(0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def compared(one: Mapping[Key, Floats], other: Mapping[Key, Floats]) -> dict[Key, Floats]:
    """By how much the figures of one kind of classifier exceed another's, in the same draws."""
    return {key: draws - other[key] for key, draws in one.items() if key in other}
