"""A threshold keeps its false-alarm rate, and only strangers set it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import InvalidInput
from gen.metrics.calibration import (
    Calibration,
    calibrate,
    calibrate_scores,
    conformal_quantile,
    flag,
    gap_of_rates,
    least_rate,
    rate_of,
)
from gen.metrics.copies import Matches


def matches(scores: np.ndarray) -> Matches:
    return Matches(scores, np.zeros(len(scores), np.intp))


def test_the_threshold_is_the_rank_that_conformal_prediction_gives() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 200.0))
    assert conformal_quantile(scores, 0.01) == 198  # (199 + 1) * 0.99
    assert conformal_quantile(scores[:99], 0.01) == scores[:99].max()
    with pytest.raises(InvalidInput, match="98 held-out images"):
        conformal_quantile(scores[:98], 0.01)
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(InvalidInput, match="false_alarm_rate"):
            conformal_quantile(scores, rate)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_a_further_image_is_flagged_at_most_as_often_as_was_asked(rate: float) -> None:
    draws = np.random.default_rng(0).standard_exponential((4000, 150))
    flagged = np.mean([row[-1] > conformal_quantile(row[:-1], rate) for row in draws])
    # exactly 1 - ceil(150 (1 - rate)) / 150; three standard errors
    expected = 1 - np.ceil(150 * (1 - rate)) / 150
    assert abs(flagged - expected) < 3 * np.sqrt(rate / 4000)


def test_patients_of_the_training_set_set_no_threshold() -> None:
    with pytest.raises(InvalidInput, match="2 held-out images are of 1 patients"):
        calibrate(matches(np.ones(4)), ["a", "b", "b", "c"], ["x", "b"])


def test_the_floor_is_the_rate_of_real_images_by_other_patients_threshold() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    patients = [f"p{i // 2}" for i in range(4000)]
    calibration = calibrate(matches(scores), patients, ["x"], 0.05)
    assert calibration.num_images == 4000
    assert calibration.floor.low < 0.05 < calibration.floor.high
    assert calibration.threshold.low < 1.645 < calibration.threshold.high
    assert calibration.threshold.low < calibration.threshold.value < calibration.threshold.high
    assert calibrate(matches(scores), patients, ["x"], 0.05) == calibration


def test_alike_images_of_a_patient_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=300), 8)
    alone = calibrate(matches(scores), [str(i) for i in range(2400)], [], 0.05).threshold
    shared = calibrate(matches(scores), [str(i // 8) for i in range(2400)], [], 0.05).threshold
    assert shared.value == alone.value
    assert shared.high - shared.low > 1.5 * (alone.high - alone.low)


def test_what_is_above_the_threshold_is_flagged_and_counted() -> None:
    calibration = calibrate(matches(np.linspace(0, 1, 400)), [str(i) for i in range(400)], [])
    limit = calibration.threshold.value
    found = flag(matches(np.array([limit - 0.1, limit, limit + 0.1, limit + 0.2])), calibration)
    assert found.flagged.tolist() == [False, False, True, True]
    assert found.rate.value == 0.5
    assert found.floor == calibration.floor


def test_no_flags_among_n_leave_room_for_some() -> None:
    rate, z = rate_of(np.zeros(100, bool)), 1.959964
    assert (rate.value, rate.low) == (0, pytest.approx(0, abs=1e-12))
    assert rate.high == pytest.approx(z**2 / (100 + z**2), rel=1e-4)  # Wilson 1927
    with pytest.raises(InvalidInput, match="at least one"):
        rate_of(np.zeros(0, bool))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 400), share=st.floats(0, 1))
def test_rates_of_the_opposite_mirror_each_other(count: int, share: float) -> None:
    flags = np.arange(count) < share * count
    rate, other = rate_of(flags), rate_of(~flags)
    assert rate.low <= rate.value <= rate.high
    assert (1 - other.value, 1 - other.high) == pytest.approx((rate.value, rate.low), abs=1e-9)


def test_a_gap_of_rates_has_newcombes_interval() -> None:
    # Newcombe 1998, table II, example (a): 56/70 - 48/80 is 0.2 [0.0524, 0.3339]
    first, second = (rate_of(np.arange(n) < k) for k, n in ((56, 70), (48, 80)))
    gap = gap_of_rates(first, second)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    none = gap_of_rates(rate_of(np.zeros(30, bool)), rate_of(np.zeros(10, bool)))
    assert none.value == 0
    assert none.low < 0 < none.high


def test_the_strictest_rate_that_there_are_images_enough_for_is_taken() -> None:
    asked: list[float] = []

    def at(rate: float) -> Calibration:
        asked.append(rate)
        return calibrate_scores(np.arange(60.0), [f"p{i}" for i in range(60)], rate)

    assert least_rate(at, (0.01, 0.05, 0.1)).false_alarm_rate == 0.05
    assert asked == [0.01, 0.05]
    with pytest.raises(InvalidInput, match=r"false_alarm_rate is 0\.01"):
        least_rate(at, (0.005, 0.01))
