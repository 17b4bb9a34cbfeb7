"""What comes of a data set job as a whole, from what its items have said so far."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.data.bundle import read_member
from gen.data.samples import Sample, tar_parts
from gen.errors import MedphantomError, NotFound
from jobs.job import Item, Job
from jobs.sink import BUNDLE, UPLOADS, Sink
from jobs.store import JobStore, State
from jobs.tasks.task import Made
from serve.links import media_type_of

if TYPE_CHECKING:
    from gen.gates.calibration import GateCalibration
    from jobs.audit.schema import Planted

AT_ONCE = 500  # items that are read from the store
NUM_PICTURES = 12
MOST_REASONS = 20


def items_of(store: JobStore, job: Job) -> Iterator[Item]:
    """All items, a few hundred in memory at a time."""
    start = 0
    while found := store.items(job.id, start, AT_ONCE):
        yield from found
        start = found[-1].index + 1


def figures(store: JobStore, sink: Sink, job: Job) -> dict[str, Any]:
    """What `report.json` of the runner says, of the items that are done."""
    return _Report(store, sink, job).counts


def page(store: JobStore, sink: Sink, job: Job) -> str:
    """The same as HTML, with a few of the pictures."""
    from jobs.gates.report import TEMPLATE, page_values, picture_sheet
    from jobs.pages import page_of

    report = _Report(store, sink, job)
    pictures = {"accepted": picture_sheet(_pngs(store, sink, job)), "rejected": None}
    values = page_values(job.id, report.counts, report.quality, report.calibration, pictures)
    return page_of(TEMPLATE, values)


def errors(store: JobStore, job: Job) -> Iterator[bytes]:
    """A line for each item that failed: id, key, reason and attempts."""
    for item in items_of(store, job):
        if item.state is State.FAILED:
            row, record = item.spec["item"], item.record or {}
            line = {
                "id": row["id"],
                "key": row["key"],
                "reason": item.error,
                "attempts": len(record.get("attempts", ())),
            }
            yield (json.dumps(line, sort_keys=True) + "\n").encode()


def samples(store: JobStore, sink: Sink, job: Job) -> Iterator[bytes]:
    """A tar of WebDataset, part by part, of what is made."""
    return tar_parts(_samples(store, sink, job))


def _samples(store: JobStore, sink: Sink, job: Job) -> Iterator[Sample]:
    from jobs.runner.kinds import kind_of

    kind = kind_of(job.spec["task"])
    for item in items_of(store, job):
        if item.file is None or item.sha256 is None or item.record is None:
            continue
        made = Made(sink.get(item.file, item.sha256), media_type_of(item.file), item.record)
        meta = {name: each for name, each in item.record.items() if name != "judged"}
        yield Sample(item.spec["item"]["key"], kind.files_of(made), meta)


class _Report:
    """Figures of the items that are done, `quality` among them if gates judged some."""

    def __init__(self, store: JobStore, sink: Sink, job: Job) -> None:
        from jobs.gates.figures import quality
        from jobs.gates.log import JudgedItem

        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        judged: list[JudgedItem] = []
        taught = ""
        for item in items_of(store, job):
            counts[item.state] += 1
            counts["bytes"] += item.size or 0
            if item.error is not None and (item.error in reasons or len(reasons) < MOST_REASONS):
                reasons[item.error] += 1
            record = item.record or {}
            if "taught" in (said := record.get("judged", record)):
                judged.append(JudgedItem.model_validate(said))
                taught = said["taught"]
        self.calibration, planted = _known(sink, taught)
        self.quality = quality(judged, self.calibration, planted)
        self.counts = {
            "task": job.spec["task"],
            "model": job.spec["model"],
            "items": job.num_items,
            "made": counts[State.SUCCEEDED],
            "failed": counts[State.FAILED],
            "bytes": counts["bytes"],
            "reasons": dict(reasons),
            "quality": None if self.quality is None else self.quality.model_dump(),
        }


def _known(sink: Sink, digest: str) -> "tuple[GateCalibration | None, dict[str, Planted]]":
    """What the gates of a job were judged by, of the upload that they were loaded from."""
    from jobs.gates.calibrate import CALIBRATION, PLANTED
    from jobs.gates.report import known_of

    with tempfile.TemporaryDirectory() as folder, suppress(MedphantomError):
        for name in (CALIBRATION, PLANTED) if digest else ():
            with sink.open(f"{UPLOADS}/{digest}") as stream, suppress(NotFound):
                Path(folder, name).write_bytes(read_member(stream, name))
        return known_of(Path(folder))
    return None, {}


def _pngs(store: JobStore, sink: Sink, job: Job) -> Iterator[bytes]:
    """Pictures of items that lie evenly over the job."""
    step = max(1, job.num_items // NUM_PICTURES)
    made = (item for item in items_of(store, job) if item.file and item.sha256)
    for item in islice(made, 0, None, step):
        assert item.file is not None
        assert item.sha256 is not None
        try:
            if media_type_of(item.file) != BUNDLE:
                yield sink.get(item.file, item.sha256)
                continue
            with sink.open(item.file) as stream:
                name = "healthy.png" if job.spec["task"] == "anomaly" else "image.png"
                yield read_member(stream, name)
        except MedphantomError:  # forgotten meanwhile
            continue
