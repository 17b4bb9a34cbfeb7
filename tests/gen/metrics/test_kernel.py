"""The kernel distance against the kernel's own moments."""

from itertools import product

import numpy as np
import pytest

from gen.errors import InvalidInput
from gen.metrics.kernel import kernel_distance, kernel_distances


def expected(mean: float, deviation: float, other_mean: float, other_deviation: float) -> float:
    """E (x y + 1)^3 of independent normal x and y, from their first three moments."""

    def moments(m: float, s: float) -> tuple[float, float, float]:
        return m, m**2 + s**2, m**3 + 3 * m * s**2

    first, second = moments(mean, deviation), moments(other_mean, other_deviation)
    return 1 + sum(c * a * b for c, a, b in zip((3, 3, 1), first, second, strict=True))


def test_gaussians_lie_as_far_apart_as_their_moments_say() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (4000, 1)), rng.normal(1, 0.5, (4000, 1))
    closed = expected(0, 1, 0, 1) + expected(1, 0.5, 1, 0.5) - 2 * expected(0, 1, 1, 0.5)
    assert kernel_distance(x, y) == pytest.approx(closed, rel=0.1)


def test_the_estimate_is_the_sum_over_pairs_of_different_images() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(1, 1, size=(5, 3))

    def mean(rows: np.ndarray, others: np.ndarray, *, same: bool) -> float:
        return float(
            np.mean(
                [
                    (a @ b / 3 + 1) ** 3
                    for i, a in enumerate(rows)
                    for j, b in enumerate(others)
                    if not same or i != j
                ]
            )
        )

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_the_estimate_is_unbiased_however_small_the_sets() -> None:
    points = np.array([[0.0, 1.0], [2.0, -1.0], [-1.0, 3.0]])
    chances = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    kernel = (points @ points.T / 2 + 1) ** 3
    difference = chances[0] - chances[1]
    mean = sum(
        np.prod(chances[0][list(drawn[:2])])
        * np.prod(chances[1][list(drawn[2:])])
        * kernel_distance(points[list(drawn[:2])], points[list(drawn[2:])])
        for drawn in product(range(3), repeat=4)
    )
    assert mean == pytest.approx(difference @ kernel @ difference)


def test_sets_of_one_distribution_lie_about_zero() -> None:
    rng = np.random.default_rng(0)
    alike = [kernel_distance(*rng.normal(size=(2, 10, 2))) for _ in range(2000)]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(len(alike))


def test_subsets_are_parts_of_the_sets_so_that_their_spread_means_something() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 3))
    assert len(set(kernel_distances(x, y))) == 20
    assert kernel_distances(x, y).std() > 0
    same = kernel_distances(np.ones((40, 3)), np.ones((40, 3)))
    assert np.allclose(same, 0)
    for size in (40, 41, 1):
        with pytest.raises(InvalidInput, match=f"subset_size is {size}"):
            kernel_distances(x, y, subset_size=size)


def test_subsets_are_half_of_the_smaller_set_but_a_thousand_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[int, int]] = []

    def record(first: np.ndarray, second: np.ndarray) -> float:
        sizes.append((len(first), len(second)))
        return 0.0

    monkeypatch.setattr("gen.metrics.kernel.kernel_distance", record)
    for first, second in ((40, 31), (2500, 3000)):
        kernel_distances(np.zeros((first, 1)), np.zeros((second, 1)), num_subsets=1)
    assert sizes == [(15, 15), (1000, 1000)]


def test_the_mean_over_subsets_is_near_the_distance_of_the_whole_sets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (300, 4)), rng.normal(1, 1, (300, 4))
    subsets = kernel_distances(x, y, num_subsets=200, subset_size=100)
    error = 3 * subsets.std() / np.sqrt(len(subsets))
    assert subsets.mean() == pytest.approx(kernel_distance(x, y), abs=error)


def test_the_order_of_images_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 3))
    before, subsets = kernel_distance(x, y), kernel_distances(x, y)
    monkeypatch.setattr("gen.metrics.kernel.CHUNK", 7)
    x, y = rng.permutation(x), rng.permutation(y)
    assert kernel_distance(x, y) == pytest.approx(before)
    assert kernel_distance(y, x) == pytest.approx(before)
    assert kernel_distances(x, y) == pytest.approx(subsets)


@pytest.mark.parametrize("shapes", [((1, 2), (30, 2)), ((30, 2), (30, 3))])
def test_sets_that_do_not_fit_are_refused(shapes: tuple) -> None:
    for measure in (kernel_distance, kernel_distances):
        with pytest.raises(InvalidInput, match="at least two rows"):
            measure(*(np.zeros(shape) for shape in shapes))


def test_sets_too_small_for_a_true_subset_are_refused() -> None:
    with pytest.raises(InvalidInput, match="below the 3 images"):
        kernel_distances(np.zeros((3, 2)), np.zeros((30, 2)))
