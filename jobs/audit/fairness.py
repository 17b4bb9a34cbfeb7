"""Fairness: how far apart the groups of a set lie in every figure, and how sure that is."""

from collections.abc import Mapping, Sequence

import numpy as np

from gen.metrics.calibration import gap_of_rates, rate_of
from gen.metrics.fidelity import widest_gap
from gen.metrics.groups import rows_by_group
from gen.metrics.intervals import MIN_COUNT, bootstrap_gap
from jobs.audit.alignment import Judged
from jobs.audit.copies import Searched
from jobs.audit.fidelity import Likeness, besides
from jobs.audit.schema import Fairness, Gap, Interval, Omitted
from jobs.audit.sets import Inputs

AXES = ("sex", "age group", "view")
HIGHER_IS_BETTER = {"precision", "recall", "density", "coverage", "spread", "vendi"}

Values = Sequence[float | bool | None]
Rows = Mapping[str, Sequence[int]]


def fairness(inputs: Inputs, likeness: Likeness, judged: Judged, searched: Searched) -> Fairness:
    """The gap between the best and the worst served group, by axis and figure."""
    ours, theirs = rows_by_group(inputs.synthetic.labels), rows_by_group(inputs.real.labels)
    found: Fairness = {}
    for axis in AXES:
        gaps = _of_draws(likeness, axis)
        gaps |= _of_followed(judged, ours[axis], theirs[axis])
        if not isinstance(searched.copies, Omitted):
            gaps |= _of_copies(searched, ours[axis], theirs[axis])
        known = ", ".join(ours[axis]) or "none"
        why = f"synthetic images of two groups with enough images are needed; the groups: {known}"
        found[axis] = gaps or Omitted(omitted=why)
    return found


def _of_draws(likeness: Likeness, axis: str) -> dict[str, Gap]:
    groups = likeness.draws.get(axis, {})
    if len(groups) < 2:
        return {}
    gaps = {}
    for name in next(iter(groups.values())):
        widest = widest_gap(
            {group: besides(draws[name]) for group, draws in groups.items()},
            name in HIGHER_IS_BETTER,
        )
        gaps[name] = Gap(
            best=widest.best, worst=widest.worst, **Interval.of(widest.gap).model_dump()
        )
    return gaps


def _values(rows: Rows, values: Values) -> dict[str, np.ndarray]:
    """What is known of each group that has enough of it."""
    known = {
        name: np.array([v for row in chosen if (v := values[row]) is not None], np.float64)
        for name, chosen in rows.items()
    }
    return {name: each for name, each in known.items() if len(each) >= MIN_COUNT}


def _of_followed(judged: Judged, ours: Rows, theirs: Rows) -> dict[str, Gap]:
    groups, real = _values(ours, judged.synthetic), _values(theirs, judged.real)
    if len(groups) < 2:
        return {}
    best, *_, worst = sorted(groups, key=lambda name: groups[name].mean(), reverse=True)
    gap = bootstrap_gap(groups[best], groups[worst])
    both = best in real and worst in real
    floor = Interval.of(bootstrap_gap(real[best], real[worst])) if both else None
    return {"followed": Gap(best=best, worst=worst, floor=floor, **Interval.of(gap).model_dump())}


def _of_copies(searched: Searched, ours: Rows, theirs: Rows) -> dict[str, Gap]:
    groups, real = _values(ours, searched.synthetic), _values(theirs, searched.real)
    if len(groups) < 2:
        return {}
    rates = {name: rate_of(each > 0) for name, each in groups.items()}
    best, *_, worst = sorted(rates, key=lambda name: rates[name].value)
    gap = gap_of_rates(rates[worst], rates[best])
    floor = None
    if best in real and worst in real:
        floor = Interval.of(gap_of_rates(*(rate_of(real[name] > 0) for name in (worst, best))))
    return {"copies": Gap(best=best, worst=worst, floor=floor, **Interval.of(gap).model_dump())}
