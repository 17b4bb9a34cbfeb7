"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
from cleanfid.fid import frechet_distance as cleanfid_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gen.errors import InvalidInput
from gen.metrics.frechet import frechet_distance


def white(rows: int, columns: int, seed: int) -> np.ndarray:
    """Features whose sample mean is 0 and sample covariance is exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(rows, columns))
    x -= x.mean(0)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    return x @ vectors @ np.diag(values**-0.5)


def test_a_shift_costs_its_squared_length() -> None:
    x = white(60, 3, 0)
    assert frechet_distance(x, x + np.array([1.0, 2.0, 2.0])) == pytest.approx(9)


def test_a_scale_costs_the_squared_difference_of_deviations() -> None:
    x, y = white(60, 3, 0), white(80, 3, 1)
    assert frechet_distance(x, 3 * y) == pytest.approx(3 * (3 - 1) ** 2)
    assert frechet_distance(3 * y, x) == pytest.approx(12)


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)) @ np.diag([1, 2, 3, 4])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)


def test_sets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="columns"):
        frechet_distance(np.zeros((5, 2)), np.zeros((5, 3)))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(6, 30), columns=st.integers(1, 5))
def test_any_two_sets_have_the_distance_of_their_gaussians(
    seed: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    first, second = (
        rng.normal(size=(count, columns)) @ rng.normal(size=(columns, columns))
        for count in (rows, rows + 7)
    )
    spreads = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(
        spreads[0] + spreads[1] - 2 * sqrtm(spreads[0] @ spreads[1]).real
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


def test_fewer_images_than_dimensions_still_have_a_distance() -> None:
    few = np.random.default_rng(0).normal(size=(5, 40))
    shift = np.arange(40) / 10
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, few + shift) == pytest.approx(shift @ shift)


@pytest.mark.parametrize(("columns", "smallest"), [(8, 1.0), (64, 1.0), (64, 1e-3)])
def test_the_distance_is_that_of_the_usual_library(columns: int, smallest: float) -> None:
    rng = np.random.default_rng(columns)
    scales = np.geomspace(1, smallest, columns)
    first, second = (
        rng.normal(size=(count, columns)) @ rng.normal(size=(columns, columns)) * scales
        for count in (400, 500)
    )
    statistics = [(each.mean(0), np.cov(each, rowvar=False)) for each in (first, second)]
    expected = cleanfid_distance(*statistics[0], *statistics[1])
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_columns_that_say_nothing_or_follow_from_others_change_nothing() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 60, 3))
    plain = frechet_distance(first, second)
    dead = [np.hstack([each, np.full((60, 2), 7.0)]) for each in (first, second)]
    assert frechet_distance(*dead) == pytest.approx(plain, rel=1e-6)
    doubled = [np.hstack([each, each]) / np.sqrt(2) for each in (first, second)]
    assert frechet_distance(*doubled) == pytest.approx(plain, rel=1e-6)


def test_the_order_of_images_means_nothing() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40, 3))
    shuffled = frechet_distance(rng.permutation(first), rng.permutation(second))
    assert shuffled == pytest.approx(frechet_distance(first, second))


def test_features_of_single_precision_are_measured_in_double() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(100, 1, (2, 80, 5)).astype(np.float32)
    exact = frechet_distance(first.astype(np.float64), second.astype(np.float64))
    assert frechet_distance(first, second) == exact
