"""Draws of groups and seeds, and the intervals of what is computed in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.metrics.crossed import draw_crossed, estimate_of


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num_groups=st.integers(1, 6), num_seeds=st.integers(2, 5))
def test_the_first_draw_is_everything_and_others_keep_each_stratum_in_size(
    seed: int, num_groups: int, num_seeds: int
) -> None:
    strata = np.repeat([0, 1], 2 * num_groups)
    groups = np.tile(np.repeat(np.arange(num_groups), 2), 2)
    draws = draw_crossed(strata, groups, num_seeds, 5, seed)
    assert draws.images.shape == (6, len(strata))
    assert draws.seeds.shape == (6, num_seeds)
    assert (draws.images[0] == 1).all()
    assert (draws.seeds[0] == 1).all()
    for stratum in (0, 1):
        sums = draws.images[:, strata == stratum].sum(1)
        np.testing.assert_allclose(sums, 2 * num_groups)
    np.testing.assert_allclose(draws.seeds.sum(1), num_seeds)
    # both images of a group are drawn as often
    np.testing.assert_array_equal(draws.images[:, ::2], draws.images[:, 1::2])


def test_a_mean_over_seeds_is_weighed_by_how_often_each_was_drawn() -> None:
    draws = draw_crossed(np.zeros(4, int), range(4), 3, 50, 0)
    figures = np.broadcast_to([1.0, 10.0, 100.0], (51, 3))
    means = draws.over_seeds(figures)
    np.testing.assert_allclose(means, draws.seeds @ [1, 10, 100] / 3)
    by_class = draws.over_seeds(np.stack([figures, 2 * figures], 2))
    np.testing.assert_allclose(by_class, np.stack([means, 2 * means], 1))


def test_the_spread_of_a_mean_is_the_standard_error_with_n_minus_1() -> None:
    values = np.random.default_rng(0).normal(size=12)
    draws = draw_crossed(np.zeros(12, int), range(12), 2, 40_000, 0)
    means = draws.images[1:] @ values / 12
    assert means.std() == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.02)


def test_draws_that_lack_what_a_figure_needs_do_not_count() -> None:
    found = estimate_of(np.array([0.5, np.nan, 0.2, 0.8]))
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.215, 0.785))
