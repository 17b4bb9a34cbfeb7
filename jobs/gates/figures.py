"""What the gates let pass, of whom, and how sure that is."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field

from gen.gates.calibration import GateCalibration
from gen.metrics.calibration import gap_of_rates, rate_of
from gen.metrics.intervals import MIN_COUNT, Estimate
from jobs.audit.schema import Gap, Interval, Model, Planted
from jobs.gates.log import JudgedItem

AXES = ("label", "sex", "age_group", "view")


class Acceptance(Model):
    """Of some items, with Wilson intervals over items."""

    items: int
    attempts: int
    given_up: int
    first: Interval = Field(description="Share whose first attempt passed every gate")
    kept: Interval = Field(description="Share of which any attempt did")


class GateFigures(Model):
    """Of one gate, on first attempts: later ones are of what failed before."""

    judged: int
    refused: Interval
    floor: Interval | None = Field(None, description="The same of real images of other patients")
    faults: dict[str, int] = Field(description="By kind, over all attempts")
    unjudged: dict[str, int] = Field(description="Items that asked for what it cannot judge")


class Quality(Model):
    """`quality` of report.json."""

    overall: Acceptance
    by: dict[str, dict[str, Acceptance]] = Field(description="By axis and group")
    gaps: dict[str, Gap] = Field(description="By axis, in the share of first attempts that passed")
    gates: dict[str, GateFigures]
    planted: dict[str, Planted] = Field(description="Recall of known copies, by alteration")
    false_alarms: Interval | None = Field(description="Of copies, on real images of others")
    notes: tuple[str, ...] = ()


def quality(
    items: Iterable[JudgedItem],
    calibration: GateCalibration | None = None,
    planted: Mapping[str, Planted] | None = None,
) -> Quality | None:
    """All figures of the judged items of a job; None if nothing was judged."""
    judged = [item for item in items if item.attempts and item.attempts[0]]
    if not judged:
        return None
    groups = {axis: _groups(judged, axis) for axis in AXES}
    by = {
        axis: {name: acceptance(each) for name, each in sorted(found.items())}
        for axis, found in groups.items()
        if found
    }
    floors = {} if calibration is None else _floors(calibration)
    return Quality(
        overall=acceptance(judged),
        by=by,
        gaps={axis: gap for axis, found in by.items() if (gap := _gap(found)) is not None},
        gates=_gates(judged, floors),
        planted=dict(planted or {}),
        false_alarms=floors.get("copies"),
        notes=() if calibration is None else calibration.notes,
    )


def acceptance(items: list[JudgedItem]) -> Acceptance:
    """Of one item or more."""
    return Acceptance(
        items=len(items),
        attempts=sum(len(item.attempts) for item in items),
        given_up=sum(not item.accepted for item in items),
        first=_rate([item.passed_first for item in items]),
        kept=_rate([item.accepted for item in items]),
    )


def _rate(flags: list[bool]) -> Interval:
    return Interval.of(rate_of(np.array(flags, bool)))


def _groups(items: list[JudgedItem], axis: str) -> dict[str, list[JudgedItem]]:
    found: dict[str, list[JudgedItem]] = {}
    for item in items:
        names = item.labels if axis == "label" else (item.group.get(axis),)
        for name in names:
            if name is not None:
                found.setdefault(name, []).append(item)
    return found


def _gap(groups: Mapping[str, Acceptance]) -> Gap | None:
    """Best less worst, of groups that have items enough; None of fewer than two."""
    known = {name: each for name, each in groups.items() if each.items >= MIN_COUNT}
    if len(known) < 2:
        return None
    best, *_, worst = sorted(known, key=lambda name: known[name].first.value, reverse=True)
    rates = (Estimate(**known[name].first.model_dump()) for name in (best, worst))
    return Gap(best=best, worst=worst, **Interval.of(gap_of_rates(*rates)).model_dump())


def _gates(items: list[JudgedItem], floors: Mapping[str, Interval]) -> dict[str, GateFigures]:
    refused: dict[str, list[bool]] = {}
    faults: dict[str, Counter[str]] = {}
    unjudged: dict[str, Counter[str]] = {}
    for item in items:
        for verdict in item.attempts[0]:
            refused.setdefault(verdict.gate, []).append(not verdict.passed)
            unjudged.setdefault(verdict.gate, Counter()).update(verdict.unjudged)
        for verdict in (each for attempt in item.attempts for each in attempt):
            if verdict.fault is not None:
                faults.setdefault(verdict.gate, Counter())[verdict.fault] += 1
    return {
        name: GateFigures(
            judged=len(flags),
            refused=_rate(flags),
            floor=floors.get(name),
            faults=dict(faults.get(name, Counter()).most_common()),
            unjudged=dict(unjudged[name].most_common()),
        )
        for name, flags in refused.items()
    }


def _floors(calibration: GateCalibration) -> dict[str, Interval]:
    """By gate, how often it refuses real images of other patients."""
    sanity, copies, labels = calibration.sanity, calibration.copies, calibration.labels
    found: dict[str, Estimate | None] = {
        "sanity": None if sanity is None else sanity.calibration.floor,
        "copies": None if copies is None else copies.calibration.floor,
        "labels": None if labels is None else labels.floor,
    }
    return {name: Interval.of(each) for name, each in found.items() if each is not None}
