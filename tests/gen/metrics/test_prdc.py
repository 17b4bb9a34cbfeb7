"""Supports that are known by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import InvalidInput
from gen.metrics.prdc import PRDC, prdc


def line(*points: float) -> np.ndarray:
    """Points on a line."""
    return np.array(points)[:, None]


def test_a_set_covers_itself_wholly() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    same = prdc(x, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(6 / 5)  # each ball holds its centre and five others


def test_far_sets_share_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    assert prdc(x + 100, x) == PRDC(0, 0, 0, 0)


def test_figures_on_a_line_are_those_counted_by_hand() -> None:
    real = line(0, 1, 2, 10)  # radii for k = 1: 1, 1, 1, 8
    generated = line(0.5, 1.5, 30)  # radii: 1, 1, 28.5
    figures = prdc(generated, real, k=1)
    assert figures.precision == pytest.approx(2 / 3)  # 30 is in no real ball
    # 0.5 lies in the balls of 0 and 1, 1.5 in those of 1 and 2: four hits of three images
    assert figures.density == pytest.approx(4 / 3)
    assert figures.coverage == pytest.approx(3 / 4)  # 10 has 1.5 at 8.5 > 8
    assert figures.recall == pytest.approx(1)  # the ball of 30 reaches from 1.5 to 58.5


def test_a_missing_kind_costs_recall_and_coverage_but_no_precision() -> None:
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(0, 1, (150, 2)), rng.normal(50, 1, (50, 2))])
    half = prdc(rng.normal(0, 1, (150, 2)), real)
    assert half.precision > 0.9
    assert half.recall == pytest.approx(0.75, abs=0.06)
    assert half.coverage == pytest.approx(0.75, abs=0.06)


def test_a_kind_that_is_not_real_costs_precision_but_no_recall() -> None:
    rng = np.random.default_rng(0)
    generated = np.concatenate([rng.normal(0, 1, (150, 2)), rng.normal(50, 1, (50, 2))])
    more = prdc(generated, rng.normal(0, 1, (150, 2)))
    assert more.precision == pytest.approx(0.75, abs=0.06)
    assert more.recall > 0.9


def test_one_image_again_and_again_is_precise_and_recalls_only_itself() -> None:
    real = np.random.default_rng(0).normal(size=(60, 4))
    same = prdc(np.repeat(real[:1], 20, axis=0), real)
    holding = (
        np.linalg.norm(real - real[0], axis=1)
        <= np.sort(np.linalg.norm(real[:, None] - real, axis=2), axis=1)[:, 5]
    )
    assert same.precision == 1
    assert same.recall == pytest.approx(1 / 60)
    assert same.coverage == pytest.approx(holding.mean())
    assert same.density == pytest.approx(holding.sum() / 5)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(3, 20), others=st.integers(3, 20))
def test_figures_are_those_of_the_definition(seed: int, rows: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    generated, real = rng.normal(size=(rows, 2)), rng.normal(0.5, 2, size=(others, 2))
    between = np.linalg.norm(generated[:, None] - real, axis=2)
    radii = [
        np.sort(np.linalg.norm(each[:, None] - each, axis=2), axis=1)[:, 2]
        for each in (generated, real)
    ]
    in_real, in_generated = between <= radii[1], between <= radii[0][:, None]
    found = prdc(generated, real, k=2)
    assert found.precision == pytest.approx(in_real.any(1).mean())
    assert found.recall == pytest.approx(in_generated.any(0).mean())
    assert found.density == pytest.approx(in_real.sum() / (2 * rows))
    assert found.coverage == pytest.approx(in_real.any(0).mean())


def test_rounding_decides_nothing_far_from_the_origin() -> None:
    lattice = line(*(0.1 * np.arange(40)))
    near, far = (prdc(lattice + shift, lattice + shift, k=1) for shift in (0, 1000))
    assert near == far
    assert near.density == pytest.approx(3 - 2 / 40)  # each inner ball holds both neighbours


def test_the_order_of_images_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    generated, real = rng.normal(size=(2, 90, 3))
    before = prdc(generated, real)
    monkeypatch.setattr("gen.metrics.prdc.CHUNK", 7)
    after = prdc(rng.permutation(generated), rng.permutation(real))
    assert np.allclose(list(vars(before).values()), list(vars(after).values()))


@pytest.mark.parametrize("shapes", [((5, 2), (30, 2)), ((30, 2), (30, 3))])
def test_too_few_rows_or_other_columns_are_refused(shapes: tuple) -> None:
    with pytest.raises(InvalidInput, match="more than k = 5"):
        prdc(*(np.zeros(shape) for shape in shapes))
