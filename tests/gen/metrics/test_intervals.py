"""Floors and intervals whose width is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import InvalidInput
from gen.metrics.frechet import frechet_distance
from gen.metrics.intervals import (
    Estimate,
    Features,
    against_floor,
    bootstrap_gap,
    bootstrap_mean,
    content_order,
    disjoint_halves,
    estimate,
    halvings,
)


def normal(count: int, columns: int, seed: int) -> Features:
    """White features (count, columns)."""
    return np.random.default_rng(seed).normal(size=(count, columns))


def each_its_own(count: int) -> list[str]:
    """A patient an image."""
    return [f"p{i}" for i in range(count)]


def mean_gap(judged: Features, real: Features) -> float:
    """A signed distance whose variance is known."""
    return float(judged.mean() - real.mean())


def width(of: Estimate) -> float:
    """In standard errors of a normal figure."""
    return (of.high - of.low) / (2 * 1.96)


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_halves_share_no_patient_and_lose_no_image(counts: list[int], seed: int) -> None:
    patients = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    left, right = disjoint_halves(patients, np.random.default_rng(seed))
    assert sorted([*left, *right]) == list(range(len(patients)))
    assert not {patients[i] for i in left} & {patients[i] for i in right}


@pytest.mark.parametrize("count", [10, 39, 200])
def test_sets_of_a_draw_have_one_size_and_repeat_no_image(count: int) -> None:
    generated, real = np.arange(count)[:, None], np.arange(60)[:, None]
    patients = [str(i // 2) for i in range(60)]
    for half, left, right in halvings(generated, real, patients, 5, 0):
        assert len(half) == len(left) == len(right) == min(count // 2, 30)
        assert all(len(np.unique(each)) == len(each) for each in (half, left, right))
        assert not set((left // 2).ravel()) & set((right // 2).ravel())


def test_more_real_images_lie_at_the_floor_and_others_above_it() -> None:
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(2, 200, 4))
    patients = [str(i // 2) for i in range(200)]
    assert against_floor(frechet_distance, same, real, patients).ratio == pytest.approx(1, abs=0.6)
    shifted = against_floor(frechet_distance, same + 1, real, patients)
    assert shifted.distance.value == pytest.approx(4, rel=0.3)
    assert shifted.ratio is not None
    assert shifted.ratio > 10
    assert shifted.distance.low <= shifted.distance.value <= shifted.distance.high


def test_the_floor_is_the_real_sets_own_whatever_was_generated() -> None:
    real, made = normal(60, 3, 0), normal(60, 3, 1)
    near, far = (
        against_floor(frechet_distance, made + shift, real, each_its_own(60)) for shift in (0, 9)
    )
    assert near.floor == far.floor
    assert far.distance.value > 50 * near.distance.value
    assert near.size == far.size == 30
    assert against_floor(frechet_distance, made[:12], real, each_its_own(60)).size == 6


def test_the_interval_is_as_wide_as_the_figure_varies_with_other_images_and_patients() -> None:
    count = 600
    result = against_floor(
        mean_gap, normal(count, 1, 0), normal(count, 1, 1), each_its_own(count), num_draws=800
    )
    assert width(result.distance) == pytest.approx(np.sqrt(1 / count + 1 / count), rel=0.12)


def test_the_interval_counts_patients_and_not_their_images() -> None:
    patients, images = 150, 4
    real = np.repeat(normal(patients, 1, 1), images, axis=0)
    names = [str(i // images) for i in range(len(real))]
    result = against_floor(mean_gap, normal(len(real), 1, 0), real, names, num_draws=800)
    expected = np.sqrt(1 / len(real) + 1 / patients)
    assert width(result.distance) == pytest.approx(expected, rel=0.15)


def test_few_generated_images_make_the_interval_wide() -> None:
    real, names = normal(400, 1, 1), each_its_own(400)
    made = normal(16, 1, 0)
    result = against_floor(mean_gap, made, real, names, num_draws=400)
    assert width(result.distance) > np.std(made) / np.sqrt(len(made))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_images_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, made = rng.normal(size=(2, 20, 2))
    made[3] = made[7]
    patients = [str(i // 3) for i in range(20)]
    values = made[:, 0]
    one, other = rng.permutation(20), rng.permutation(20)
    moved = [patients[i] for i in other]
    shuffled = against_floor(frechet_distance, made[one], real[other], moved, num_draws=3)
    assert shuffled == against_floor(frechet_distance, made, real, patients, num_draws=3)
    for before, after in (
        (bootstrap_mean(values, num_resamples=20), bootstrap_mean(values[one], num_resamples=20)),
        (
            bootstrap_gap(values, real[:, 0], None, patients, num_resamples=20),
            bootstrap_gap(values[one], real[other, 0], None, moved, num_resamples=20),
        ),
    ):
        assert np.allclose(list(vars(before).values()), list(vars(after).values()))


def test_rows_are_ordered_by_what_they_hold() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (50, 3))
    shuffled = np.random.default_rng(1).permutation(rows)
    assert np.array_equal(rows[content_order(rows)], shuffled[content_order(shuffled)])


def test_a_ratio_to_nothing_is_none() -> None:
    real = normal(60, 1, 0)
    assert against_floor(mean_gap, real + 9, real, each_its_own(60)).ratio is None


@pytest.mark.parametrize(("rows", "patients"), [(3, 20), (20, 3)])
def test_too_few_images_or_patients_are_refused(rows: int, patients: int) -> None:
    names = [str(i % patients) for i in range(20)]
    with pytest.raises(InvalidInput, match="at least 4"):
        against_floor(frechet_distance, np.zeros((rows, 2)), np.zeros((20, 2)), names)
    for few in ((np.zeros(3), None), (np.zeros(20), ["a", "b"] * 10), (np.zeros(20), ["a"])):
        with pytest.raises(InvalidInput, match="at least 4 patients"):
            bootstrap_mean(*few)
        with pytest.raises(InvalidInput, match="second holds"):
            bootstrap_gap(np.zeros(20), few[0], None, few[1])


def test_a_patient_is_named_for_each_real_image() -> None:
    with pytest.raises(InvalidInput, match="20 real images, but 3 patients"):
        against_floor(frechet_distance, np.zeros((20, 2)), np.zeros((20, 2)), ["a", "b", "c"])


def test_of_39_draws_the_next_lies_within_the_extremes_with_95_percent() -> None:
    found = estimate(np.random.default_rng(0).permutation(np.arange(39.0)))
    assert found == Estimate(19, 0, 38)


def test_a_mean_varies_as_its_number_of_patients_says() -> None:
    patients, images = 400, 5
    values = np.repeat(normal(patients, 1, 0)[:, 0], images)
    names = [str(i // images) for i in range(len(values))]
    found = bootstrap_mean(values, names)
    assert found.value == pytest.approx(values.mean())
    assert width(found) == pytest.approx(values.std() / np.sqrt(patients), rel=0.1)
    as_if_independent = bootstrap_mean(values)
    assert width(found) / width(as_if_independent) == pytest.approx(np.sqrt(images), rel=0.1)


def test_patients_with_many_images_weigh_as_many() -> None:
    names = ["many"] * 96 + ["a", "b", "c", "d"]
    values = np.array([1.0] * 96 + [0.0] * 4)
    found = bootstrap_mean(values, names)
    assert found.value == pytest.approx(0.96)
    # "many" is not drawn in (4/5)^5, a third, of the draws, and draws of it alone give 1
    assert (found.low, found.high) == (0, pytest.approx(1, abs=0.02))


def test_a_gap_of_independent_groups_has_the_variance_of_both() -> None:
    first, second = normal(300, 1, 0)[:, 0] + 2, 3 * normal(200, 1, 1)[:, 0]
    found = bootstrap_gap(first, second)
    assert found.value == pytest.approx(first.mean() - second.mean())
    expected = np.sqrt(first.var() / 300 + second.var() / 200)
    assert width(found) == pytest.approx(expected, rel=0.1)


def test_what_is_peculiar_to_patients_of_both_groups_cancels_in_their_gap() -> None:
    values, names = normal(50, 1, 0)[:, 0], each_its_own(50)
    paired = bootstrap_gap(values + 1, values, names, names)
    assert vars(paired) == pytest.approx({"value": 1, "low": 1, "high": 1})
    apart = bootstrap_gap(values + 1, values)
    assert width(apart) == pytest.approx(np.sqrt(2 / 50) * values.std(), rel=0.1)
