"""What a bar says of speed and time left."""

import pytest

from jobs.bars import Pace, duration


def test_what_was_done_before_is_no_speed() -> None:
    now = 0.0
    pace = Pace(1000, before=900, clock=lambda: now)
    now = 10.0
    assert pace.rate(920) == 2.0
    assert pace.said(920, 3) == "2.0/s, 40 s left, 3 failed"


def test_nothing_is_promised_before_anything_is_done() -> None:
    pace = Pace(10, clock=lambda: 5.0)
    assert pace.said(0, 0) == "0 failed"


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.4, "4 s"), (180, "3 min"), (7500, "2 h 5 min"), (5400, "1 h 30 min")]
)
def test_durations_are_said_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
