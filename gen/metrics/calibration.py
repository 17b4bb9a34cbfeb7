"""From which score on an image is refused, as a copy is: chosen on real images of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from gen.errors import InvalidInput
from gen.metrics.copies import Matches
from gen.metrics.intervals import LEVELS, Estimate, disjoint_halves

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Calibration:
    """A threshold for copies, and how often a real image passes it.

    `floor` is the rate of flagged among the `num_images` held-out real images, each judged by a
    threshold that other patients set; no set of images can be expected to have a lower one.
    """

    threshold: Estimate
    floor: Estimate
    false_alarm_rate: float
    num_images: int


def calibrate(
    held_out: Matches,
    patients: Sequence[str],
    training_patients: Sequence[str],
    false_alarm_rate: float = 0.01,
    seed: int = 0,
) -> Calibration:
    """Choose the threshold on held-out real images, as conformal prediction does.

    It is the ceil((N + 1)(1 - rate))-th smallest score: a further real image is flagged with at
    most that probability, if it is drawn as these were. Its interval resamples patients.

    Args:
        held_out: of N real images, in the training set that images shall be judged by.
        patients: whose they are, N.
        training_patients: of the training set; they may have no held-out image.
        false_alarm_rate: share of real images that may be flagged, above 0 and below 1.
        seed: of the halves and of the interval.

    Raises:
        InvalidInput: a patient is in both sets, or there are too few images.
    """
    _check_strangers(patients, training_patients)
    return calibrate_scores(held_out.scores, patients, false_alarm_rate, seed)


def calibrate_scores(
    scores: Scores, patients: Sequence[str], false_alarm_rate: float = 0.01, seed: int = 0
) -> Calibration:
    """As `calibrate`, of scores (N,) of any kind that are high where an image shall be refused.

    Raises:
        InvalidInput: there are too few images.
    """
    rng = np.random.default_rng(seed)
    halves = disjoint_halves(patients, rng)
    flagged = np.empty(len(scores), bool)
    for judged, others in (halves, halves[::-1]):
        flagged[judged] = scores[judged] > conformal_quantile(scores[others], false_alarm_rate)
    threshold = conformal_quantile(scores, false_alarm_rate)
    low, high = _interval(scores, patients, false_alarm_rate, rng)
    return Calibration(
        Estimate(threshold, low, high), rate_of(flagged), false_alarm_rate, len(scores)
    )


def least_rate(calibrate_at: Callable[[float], Calibration], rates: Sequence[float]) -> Calibration:
    """The calibration at the first of the rates, from strict to lax, that there are images for.

    Raises:
        InvalidInput: there are too few for the last of them.
    """
    for rate in rates[:-1]:
        try:
            return calibrate_at(rate)
        except InvalidInput:
            continue
    return calibrate_at(rates[-1])


def conformal_quantile(scores: Scores, rate: float) -> float:
    """The score that a further one exceeds with at most the probability `rate` (Vovk et al. 2005).

    Raises:
        InvalidInput: the rate is no probability, or there are too few scores for it.
    """
    if not 0 < rate < 1 or (rank := _rank(len(scores), rate)) > len(scores):
        raise InvalidInput(
            f"false_alarm_rate is {rate} for {len(scores)} held-out images in one half, but must be"
            " above 0 and below 1, and an n-th of them needs n - 1 images in each half; give more"
            " images or allow a higher rate"
        )
    return float(np.sort(scores)[rank - 1])


def _rank(count: int, rate: float) -> int:
    # rounded: (99 + 1)(1 - 0.01) is 99, whatever floating point says
    return ceil(round((count + 1) * (1 - rate), 9))


def _interval(
    scores: Scores, patients: Sequence[str], rate: float, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the quantile over draws of patients, each with all images."""
    names, codes = np.unique(np.array(patients), return_inverse=True)
    rows = [np.flatnonzero(codes == code) for code in range(len(names))]
    draws = []
    for _ in range(500):
        drawn = np.concatenate([rows[code] for code in rng.integers(len(names), size=len(names))])
        rank = min(_rank(len(drawn), rate), len(drawn))
        draws.append(np.sort(scores[drawn])[rank - 1])
    low, high = np.quantile(draws, LEVELS)
    return float(low), float(high)


def _check_strangers(patients: Sequence[str], training_patients: Sequence[str]) -> None:
    known = set(patients) & set(training_patients)
    if known:
        count = sum(name in known for name in patients)
        raise InvalidInput(
            f"{count} held-out images are of {len(known)} patients who are in the training set too,"
            " but likeness of one patient's images is no false alarm; leave them out"
        )


@dataclass(frozen=True)
class Copies:
    """Matches of N images, which of them are `flagged` (N,), and that rate beside its floor."""

    matches: Matches
    flagged: NDArray[np.bool_]
    rate: Estimate
    floor: Estimate


def flag(matches: Matches, calibration: Calibration) -> Copies:
    """Flag what scores above the threshold."""
    flagged = matches.scores > calibration.threshold.value
    return Copies(matches, flagged, rate_of(flagged), calibration.floor)


def gap_of_rates(first: Estimate, second: Estimate) -> Estimate:
    """First less second rate, each with its Wilson interval (Newcombe 1998, method 10)."""
    gap = first.value - second.value
    below = np.hypot(first.value - first.low, second.high - second.value)
    above = np.hypot(first.high - first.value, second.value - second.low)
    return Estimate(gap, float(gap - below), float(gap + above))


def rate_of(flagged: NDArray[np.bool_]) -> Estimate:
    """The share of True with its Wilson interval, which has a width at 0 and 1 too.

    Raises:
        InvalidInput: there is nothing to take a share of.
    """
    if not len(flagged):
        raise InvalidInput("flagged has no entry, but a rate needs at least one image; give some")
    count = int(np.sum(flagged))
    interval = binomtest(count, len(flagged)).proportion_ci(method="wilson")
    return Estimate(count / len(flagged), float(interval.low), float(interval.high))
