"""Figures beside their floors: draws, groups and gaps."""

import numpy as np
import pytest

from gen.errors import InvalidInput
from gen.metrics.fidelity import BesideFloor, compare, widest_gap
from gen.metrics.intervals import Features

PATIENTS = [str(i // 2) for i in range(200)]


def shift(judged: Features, real: Features) -> dict[str, float]:
    """Distance of the means, and the number of judged images."""
    return {
        "shift": float(np.linalg.norm(judged.mean(0) - real.mean(0))),
        "images": float(len(judged)),
    }


def normal(count: int, mean: float, seed: int) -> Features:
    """Features (count, 3) about a mean."""
    return np.random.default_rng(seed).normal(mean, 1, (count, 3))


def test_real_images_lie_at_the_floor_and_shifted_ones_above() -> None:
    real = normal(200, 0, 0)
    same = compare(normal(300, 0, 1), real, PATIENTS, shift).figures["shift"]
    moved = compare(normal(300, 2, 1), real, PATIENTS, shift).figures["shift"]
    assert same.value.value < 3 * same.floor.value
    assert moved.value.value == pytest.approx(2 * np.sqrt(3), rel=0.1)
    assert moved.excess.min() > 2
    assert moved.floor == same.floor  # the floor knows nothing of generated images


def test_every_set_of_a_draw_has_the_size_of_the_smallest() -> None:
    result = compare(normal(60, 0, 1), normal(200, 0, 0), PATIENTS, shift, num_draws=5)
    assert result.size == 30
    assert (result.figures["images"].draws == 30).all()
    assert (result.figures["images"].floor_draws == 30).all()


def test_the_floors_halves_share_no_patient() -> None:
    real = np.repeat(np.arange(100.0), 2)[:, None]

    def shared(judged: Features, other: Features) -> dict[str, float]:
        return {"shared": float(len(np.intersect1d(judged, other)))}

    floor = compare(real, real, PATIENTS, shared).figures["shared"].floor_draws
    assert (floor == 0).all()


@pytest.mark.parametrize(("generated", "real"), [(31, 200), (200, 31)])
def test_too_few_images_are_refused(generated: int, real: int) -> None:
    with pytest.raises(InvalidInput, match="it needs 16"):
        compare(normal(generated, 0, 1), normal(real, 0, 0), PATIENTS[:real], shift)


def test_a_gap_is_between_the_best_and_the_worst_served_above_their_floors() -> None:
    floor = np.array([1.0, 2.0, 3.0])
    groups = {
        "a": BesideFloor(floor + 1, floor),
        "b": BesideFloor(floor + 4, floor),
        "c": BesideFloor(10 * floor + 2, 10 * floor),  # the largest figure, but near its floor
    }
    gap = widest_gap(groups, higher_is_better=False)
    assert (gap.best, gap.worst) == ("a", "b")
    assert gap.gap.value == pytest.approx(3)
    turned = widest_gap(groups, higher_is_better=True)
    assert (turned.best, turned.worst) == ("b", "a")
    with pytest.raises(InvalidInput, match="only the group a"):
        widest_gap({"a": groups["a"]}, higher_is_better=True)


def test_a_gap_that_is_chance_reaches_below_zero() -> None:
    rng = np.random.default_rng(0)
    groups = {n: BesideFloor(rng.normal(size=40), rng.normal(size=40)) for n in ("a", "b")}
    for higher in (False, True):
        gap = widest_gap(groups, higher_is_better=higher).gap
        assert gap.low < 0 < gap.value < gap.high
