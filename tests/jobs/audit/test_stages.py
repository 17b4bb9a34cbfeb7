"""Stages are done once, and never believed when what they depend on has changed."""

from pathlib import Path

import pytest

from jobs.audit.schema import Interval, Omitted
from jobs.audit.stages import Stages

FIGURE = Interval(value=1, low=0, high=2)


def never() -> Interval:
    raise AssertionError


def test_a_stage_is_computed_once_for_what_it_depends_on(tmp_path: Path) -> None:
    told: list[str] = []
    stages = Stages(tmp_path / "new", "key", told.append)
    assert stages.run("a", Interval, lambda: FIGURE, 1) == FIGURE
    assert stages.run("a", Interval, never, 1) == FIGURE
    assert Stages(tmp_path / "new", "key").run("a", Interval | Omitted, never, 1) == FIGURE
    for other in (
        lambda: stages.run("a", Interval, never, 2),
        lambda: stages.run("b", Interval, never, 1),
        lambda: Stages(tmp_path / "new", "other").run("a", Interval, never, 1),
    ):
        with pytest.raises(AssertionError):
            other()
    assert told == ["a", "a", "b"]


def test_a_damaged_result_and_a_stage_that_failed_are_computed_anew(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "key")
    with pytest.raises(AssertionError):
        stages.run("a", Interval, never)
    assert list(tmp_path.iterdir()) == []
    stages.run("a", Interval, lambda: FIGURE)
    (path,) = tmp_path.iterdir()
    for damaged in (path.read_bytes()[:-3], b'{"value": "x"}', b""):
        path.write_bytes(damaged)
        assert stages.run("a", Interval, lambda: FIGURE) == FIGURE
