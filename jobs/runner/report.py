"""What came out of a job, as OUT/report.json: counts, and what the gates let pass, of whom."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gen.data.atomic import atomic_file
from jobs.runner.ledger import Judged, Shard, notes, read_note
from jobs.runner.spec import Job

REPORT = "report.json"
MOST_REASONS = 20
AXES = ("label", "sex", "age_group", "view")


def write_report(out: Path, job: Job) -> dict[str, Any]:
    """Write OUT/report.json and return it."""
    report = _figures(job, notes(out, job))
    with atomic_file(out / REPORT, overwrite=True) as stream:
        stream.write((json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    return report


def status(out: Path, job: Job) -> dict[str, Any]:
    """The same figures of the shards that have a note by now; nothing is verified."""
    found = (read_note(out, number) for number in range(job.num_shards))
    return _figures(job, (note for note in found if note is not None))


def _figures(job: Job, shards: Iterator[Shard]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    acceptance = Acceptance()
    for note in shards:
        counts.update(shards=1, made=note.num_made, failed=note.num_failed, bytes=note.num_bytes)
        for failure in note.failures:
            if failure.reason in reasons or len(reasons) < MOST_REASONS:
                reasons[failure.reason] += 1
        for judged in note.judged:
            acceptance.add(judged)
    return {
        "task": job.spec.task,
        "model": job.spec.model,
        "rows": job.num_rows,
        "items": job.num_items,
        "made": counts["made"],
        "failed": counts["failed"],
        "bytes": counts["bytes"],
        "shards": job.num_shards,
        "shards_done": counts["shards"],
        "reasons": dict(reasons),
        **acceptance.to_dict(),
    }


class Acceptance:
    """How much of what was made each gate let pass, and of whom: a bias would show here."""

    def __init__(self) -> None:
        self._gates: dict[str, Counter[str]] = {}
        self._groups: dict[str, dict[str, Counter[str]]] = {axis: {} for axis in AXES}

    def add(self, judged: Judged) -> None:
        """One item with all its attempts."""
        for attempt in judged.attempts:
            for verdict in attempt:
                tally = self._gates.setdefault(verdict["gate"], Counter())
                tally.update(judged=1, passed=int(verdict["passed"]))
        for axis in AXES:
            names = judged.labels if axis == "label" else (judged.group.get(axis),)
            for name in names:
                if name is not None:
                    self._groups[axis].setdefault(name, Counter()).update(
                        items=1, accepted=int(judged.accepted), attempts=len(judged.attempts)
                    )

    def to_dict(self) -> dict[str, Any]:
        """Empty if nothing was judged."""
        if not self._gates:
            return {}
        return {
            "gates": {
                name: {**tally, "rate": tally["passed"] / tally["judged"]}
                for name, tally in sorted(self._gates.items())
            },
            "acceptance": {
                axis: {
                    name: {**tally, "rate": tally["accepted"] / tally["attempts"]}
                    for name, tally in sorted(groups.items())
                }
                for axis, groups in self._groups.items()
                if groups
            },
        }
