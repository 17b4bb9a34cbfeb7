"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gen.errors import InvalidInput
from gen.metrics.frechet import against_floor, disjoint_halves, frechet_distance


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


@given(counts=st.lists(st.integers(1, 5), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_halves_share_no_patient_and_lose_no_image(counts: list[int], seed: int) -> None:
    patients = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    left, right = disjoint_halves(patients, np.random.default_rng(seed))
    assert sorted([*left, *right]) == list(range(len(patients)))
    assert not {patients[i] for i in left} & {patients[i] for i in right}


def test_more_real_images_lie_at_the_floor_and_others_above_it() -> None:
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(2, 200, 4))
    patients = [str(i // 2) for i in range(200)]
    assert against_floor(same, real, patients).ratio == pytest.approx(1, abs=0.6)
    shifted = against_floor(same + 1, real, patients)
    assert shifted.distance.value == pytest.approx(4, rel=0.3)
    assert shifted.ratio > 10
    assert shifted.distance.low <= shifted.distance.value <= shifted.distance.high


@pytest.mark.parametrize(("rows", "patients"), [(3, 20), (20, 3)])
def test_too_few_images_or_patients_are_refused(rows: int, patients: int) -> None:
    real = np.zeros((20, 2))
    with pytest.raises(InvalidInput, match="at least 4"):
        against_floor(np.zeros((rows, 2)), real, [str(i % patients) for i in range(20)])


def test_sets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="columns"):
        frechet_distance(np.zeros((5, 2)), np.zeros((5, 3)))


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


def test_the_floor_is_the_real_sets_own_whatever_was_generated() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 60, 3))
    patients = [str(i) for i in range(60)]
    near, far = (against_floor(made + shift, real, patients) for shift in (0, 9))
    assert near.floor == far.floor
    assert near.size == 30
    assert against_floor(made[:12], real, patients).size == 12
