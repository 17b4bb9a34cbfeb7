"""Bootstraps of weighted figures, against means whose interval is known."""

import numpy as np
import pytest

from gen.errors import InvalidInput
from gen.metrics.intervals import bootstrap_mean
from gen.metrics.weighted import Floats, bootstrap, gap, mean_of, ratio_of

VALUES = np.random.default_rng(0).normal(2, 1, 200)
PATIENTS = [f"p{i // 2}" for i in range(200)]


def test_a_mean_has_the_interval_of_a_bootstrapped_mean() -> None:
    ours = bootstrap(mean_of(VALUES), PATIENTS, num_resamples=4000)
    theirs = bootstrap_mean(VALUES, PATIENTS, num_resamples=4000)
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_gap_of_figures_of_the_same_images_is_paired() -> None:
    better = bootstrap(gap(mean_of(VALUES + 0.1), mean_of(VALUES)), PATIENTS)
    assert (better.low, better.value, better.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_ratio_sums_first() -> None:
    figure = ratio_of(np.array([1, 0]), np.array([1, 3]))
    assert figure(np.array([[1.0, 1], [2, 1]])).tolist() == pytest.approx([1 / 4, 2 / 5])


def test_no_draw_leaves_a_group_empty_and_images_of_a_patient_are_drawn_together() -> None:
    groups = [0] * 196 + [1] * 4
    seen: list[Floats] = []

    def figure(weights: Floats) -> Floats:
        seen.append(weights)
        return weights[:, -4:].sum(1)

    bootstrap(figure, PATIENTS, groups)
    assert set(seen[1][:, -4:].sum(1)) == {4}
    assert np.array_equal(seen[1][:, ::2], seen[1][:, 1::2])
    assert set(seen[1].sum(1)) == {200}


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(InvalidInput, match="patients are 3 different ones"):
        bootstrap(mean_of(VALUES[:6]), PATIENTS[:6])
