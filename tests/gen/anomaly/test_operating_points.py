"""Thresholds from healthy pictures: the false alarms they promise, and what they refuse."""

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gen.anomaly.calibration import (
    METHODS,
    RATES,
    AnomalyCalibration,
    OperatingPoints,
    calibration_in,
    check_anomaly_method,
    operating_points,
)
from gen.anomaly.regions import Map, mask_over
from gen.errors import InvalidInput

SIDE = 40


def maps_of(count: int, seed: int) -> list[Map]:
    """Maps of bodies, 0 beside them, each with a spot of its own height."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(count):
        found = np.zeros((SIDE, SIDE), np.float32)
        found[4:-4, 4:-4] = rng.uniform(0.01, 0.1, (SIDE - 8, SIDE - 8))
        y, x = rng.integers(4, SIDE - 10, 2)
        found[y : y + 4, x : x + 4] += rng.exponential(0.2)
        maps.append(found)
    return maps


def calibration(points: OperatingPoints) -> AnomalyCalibration:
    return AnomalyCalibration(prompt="healthy", data="phantoms", methods={"thor": points})


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 60), st.integers(0, 2**31))
def test_thresholds_keep_their_promise_on_the_maps_they_were_made_from(
    count: int, seed: int
) -> None:
    maps = maps_of(count, seed)
    points = operating_points(maps)
    assert points.num_images == count
    for rate, threshold in points.pictures.items():
        alarms = [bool(mask_over(found, threshold).any()) for found in maps]
        assert np.mean(alarms) <= float(rate)
    inside = np.concatenate([found[found > 0] for found in maps])
    for rate, threshold in points.pixels.items():
        assert (inside > threshold).mean() <= float(rate)


def test_thresholds_are_no_higher_than_the_promise_needs() -> None:
    maps = maps_of(200, 0)
    points = operating_points(maps)
    inside = np.concatenate([found[found > 0] for found in maps])
    for rate in RATES:
        marked = np.mean([mask_over(found, points.pictures[f"{rate:g}"]).any() for found in maps])
        assert marked > rate - 2 / len(maps)
        assert (inside > points.pixels[f"{rate:g}"]).mean() == pytest.approx(rate, rel=0.01)


def test_rates_that_so_few_pictures_cannot_tell_are_left_out() -> None:
    assert list(operating_points(maps_of(20, 0)).pictures) == ["0.05", "0.1", "0.2", "0.5"]
    assert list(operating_points(maps_of(2, 0)).pictures) == ["0.5"]
    # pixels are many more
    assert list(operating_points(maps_of(2, 0)).pixels) == [f"{rate:g}" for rate in RATES]


def test_between_known_rates_thresholds_are_interpolated() -> None:
    points = OperatingPoints(
        num_images=20, pictures={"0.1": 0.5, "0.05": 0.9, "0.5": 0.1}, pixels={}
    )
    known = calibration(points)
    assert known.threshold("thor", 0.05) == 0.9
    assert known.threshold("thor", 0.075) == pytest.approx(0.7)
    assert known.threshold("thor", 0.3) == pytest.approx(0.3)


def test_what_is_not_known_is_refused() -> None:
    known = calibration(operating_points(maps_of(20, 0)))
    with pytest.raises(InvalidInput, match=r"'autoddpm', for which .* but for: thor; find them"):
        known.threshold("autoddpm", 0.05)
    for rate in (0.04, 0.6, float("nan")):
        words = f"threshold_fpr is {rate}, but 20 healthy pictures tell thresholds of 0.05 to 0.5"
        with pytest.raises(InvalidInput, match=words):
            known.threshold("thor", rate)
    with pytest.raises(InvalidInput, match="there are 1 healthy pictures, but thresholds need at"):
        operating_points(maps_of(1, 0))
    with pytest.raises(InvalidInput, match="the maps are 0 everywhere"):
        operating_points([np.zeros((SIDE, SIDE), np.float32)] * 2)


def test_a_method_is_known_by_its_name() -> None:
    assert [check_anomaly_method(name) for name in METHODS] == list(METHODS)
    with pytest.raises(InvalidInput, match="method is 'anogan', but must be one of: autopaint, p"):
        check_anomaly_method("anogan")


@pytest.mark.parametrize(
    "more",
    [
        {"best_dice": 0.3},  # a threshold that sick pictures had a part in
        {"pictures": {}},
        {"num_images": 0},
        {"num_sick_images": 3},
    ],
)
def test_a_calibration_holds_healthy_numbers_and_nothing_else(more: dict[str, Any]) -> None:
    kept = operating_points(maps_of(20, 0)).model_dump()
    with pytest.raises(ValidationError):
        OperatingPoints.model_validate({**kept, **more})
    # nor is there a way in for masks or labels
    assert list(inspect.signature(operating_points).parameters) == ["maps", "suspicious"]


def test_a_calibration_is_the_same_after_a_card_kept_it() -> None:
    known = calibration(operating_points(maps_of(20, 0), suspicious=0.25))
    kept = {"minority": {}, "anomaly": known.model_dump(mode="json")}
    assert calibration_in(kept) == known
    assert calibration_in({"minority": {}}) is None
    with pytest.raises(ValidationError, match="masking_threshold"):
        calibration_in({"anomaly": {**kept["anomaly"], "masking_threshold": 0.13}})
