"""What came out of a job, as OUT/report.json; with gates, also what they let pass, of whom."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gen.data.atomic import atomic_file
from jobs.runner.ledger import Shard, notes, read_note
from jobs.runner.spec import Job

REPORT = "report.json"
MOST_REASONS = 20


def write_report(out: Path, job: Job) -> dict[str, Any]:
    """Write OUT/report.json and return it; with gates, OUT/report.html, too."""
    report = _figures(job, notes(out, job))
    with atomic_file(out / REPORT, overwrite=True) as stream:
        stream.write((json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    if job.spec.gates is not None:
        from jobs.gates.report import write_report as write_page

        write_page(out)
        report = json.loads((out / REPORT).read_bytes())
    return report


def status(out: Path, job: Job) -> dict[str, Any]:
    """The same figures of the shards that have a note by now; nothing is verified."""
    found = (read_note(out, number) for number in range(job.num_shards))
    return _figures(job, (note for note in found if note is not None))


def _figures(job: Job, shards: Iterator[Shard]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for note in shards:
        counts.update(shards=1, made=note.num_made, failed=note.num_failed, bytes=note.num_bytes)
        for failure in note.failures:
            if failure.reason in reasons or len(reasons) < MOST_REASONS:
                reasons[failure.reason] += 1
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
    }
