"""Rarity where the answer is known: lattices, a lonely mode, and the neighbours by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.rarity import average_knn, local_outlier_factor, rarity_score

LATTICE = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)


def mixture(rng: np.random.Generator, num_common: int, num_rare: int) -> NDArray[np.float64]:
    """A crowded mode at the origin, and a lonely one ten deviations away."""
    common = rng.normal(0, 1, (num_common, 2))
    rare = rng.normal(0, 1, (num_rare, 2)) + np.array([10.0, 0.0])
    return np.concatenate([common, rare])


def test_on_a_lattice_distances_are_those_of_geometry() -> None:
    middle = np.array([[9.5, 9.5], [10.0, 10.0]])
    # four corners of a cell; a point of the lattice itself and its four neighbours
    assert average_knn(middle, LATTICE, 4)[0] == pytest.approx(0.5**0.5)
    assert average_knn(middle, LATTICE, 5)[1] == pytest.approx(4 / 5)
    assert local_outlier_factor(middle, LATTICE, 8) == pytest.approx([1, 1], abs=0.1)
    # every ball of the three nearest others reaches 1 within, and 2^(1/2) in the corners
    assert rarity_score(np.array([[9.5, 9.5], [0.0, 0.0]]), LATTICE, 3)[0] == pytest.approx(1)
    assert np.isnan(rarity_score(np.array([[-5.0, -5.0]]), LATTICE, 3)).all()


def test_samples_of_the_lonely_mode_are_rarer_by_each() -> None:
    rng = np.random.default_rng(0)
    real = mixture(rng, 1000, 10)
    images = mixture(rng, 50, 50)
    for measure, k in ((average_knn, 5), (local_outlier_factor, 20), (rarity_score, 3)):
        values = measure(images, real, k)
        common, rare = np.nanmedian(values[:50]), np.nanmedian(values[50:])
        assert rare > 2 * common, measure.__name__


def test_in_one_dimension_the_rarity_of_a_mode_is_its_spacing() -> None:
    # modes of spacing 0.1 and 1: a ball of three neighbours reaches 0.2 and 2
    real = np.concatenate([np.arange(50) * 0.1, 100 + np.arange(50) * 1.0])[:, None]
    found = rarity_score(np.array([[2.5], [120.0]]), real, 3)
    assert found == pytest.approx([0.2, 2.0])


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_distances_scale_with_features_and_outlier_factors_do_not(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, images = rng.normal(size=(60, 3)), rng.normal(size=(7, 3))
    moved = 5.0 + scale * real, 5.0 + scale * images
    assert average_knn(moved[1], moved[0]) == pytest.approx(scale * average_knn(images, real))
    assert rarity_score(moved[1], moved[0]) == pytest.approx(
        scale * rarity_score(images, real), nan_ok=True
    )
    factors = local_outlier_factor(images, real)
    assert local_outlier_factor(moved[1], moved[0]) == pytest.approx(factors, rel=1e-6)


def test_too_few_real_images_are_refused() -> None:
    for measure in (average_knn, local_outlier_factor, rarity_score):
        with pytest.raises(InvalidInput, match="more than k"):
            measure(np.zeros((2, 3)), np.zeros((3, 3)), 3)
        with pytest.raises(InvalidInput, match="same number of columns"):
            measure(np.zeros((2, 3)), np.zeros((50, 4)), 3)
