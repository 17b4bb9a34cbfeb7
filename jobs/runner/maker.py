"""Makes shards: one engine with the task's model, whose forwards all items of all shards share."""

import errno
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gen.allocator import keep_freed_memory
from gen.data.atomic import atomic_file
from gen.data.samples import Sample
from gen.engine import Engine
from gen.errors import InvalidInput, ModelRefused
from gen.gates.gate import Gate
from gen.gates.gated import Gated, checked_names
from gen.types import Components
from jobs.device import Precision, precise, rows_at_once
from jobs.engine_loop import EngineLoop
from jobs.row_budget import exact_rows
from jobs.runner.deaths import Deadly, Suspicion
from jobs.runner.items import Item, read_items
from jobs.runner.judges import judges_of
from jobs.runner.kinds import Kind, kind_of, read_files
from jobs.runner.ledger import Shard, ShardLog, verified, write_shard
from jobs.runner.making import Attempt, Making, making_of, refusal
from jobs.runner.progress import Counter
from jobs.runner.rejected import Rejected
from jobs.runner.spec import Job

ROWS = "rows.json"  # in OUT: what the bits of a job's results depend on
FULL = (errno.ENOSPC, errno.EDQUOT)
Judges = Callable[[Job, Path, str], Sequence[Gate]]


@dataclass(frozen=True)
class _Started:
    """An item whose process is under way."""

    making: Making
    future: "Future[Gated[Attempt]]"


class Maker:
    """Loads a job's model once and makes its shards. Any thread may ask for one.

    Args:
        out: folder of the job.
        judges: the gates of a job.
        threads: of a forward on a CPU; None is PyTorch's own choice.

    Raises:
        ModelRefused, InvalidInput: the model cannot be loaded, or not for this task.
    """

    def __init__(self, out: Path, job: Job, judges: Judges = judges_of, threads: int | None = None):
        if threads is not None:
            torch.set_num_threads(threads)
        keep_freed_memory()
        self.out, self.job = out, job
        self.kind: Kind = kind_of(job.spec.task)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._pipeline = self.kind.task.load(job.spec.model, device, dtype)
        self._gates = judges(job, out, str(device))
        drawing = precise(self.kind.task.networks(self._pipeline), job.spec.mixed_precision)
        networks = checked_names(self._gates, drawing)
        self._rows = settled_rows(out, lambda: self._exact_rows(networks))
        self._loop = EngineLoop(
            Engine(
                networks,
                self._rows["max_rows"],
                pad_rows=device.type != "cpu",  # a CPU compiles nothing, and pays for rows
                exact_rows=self._rows["exact_rows"],
            )
        )
        # half of the rows from each of two shards, so that the end of one leaves no gap
        self._at_once = self.kind.at_once or max(2, self._rows["max_rows"] // 2)

    def close(self) -> None:
        """Stop what is under way."""
        self._loop.close()

    def make(self, shard: int, suspicion: Suspicion | None = None) -> Shard:
        """The note of a shard: made now, unless it is there.

        Args:
            suspicion: told of the items, if they are to be made one at a time.

        Raises:
            OSError: it cannot be written; nothing was changed.
        """
        done = verified(self.out, self.job, shard)
        if done is not None:
            return done
        if suspicion is not None and not suspicion.one_at_a_time:
            suspicion = None
        with Counter(self.out, shard) as counter:
            return write_shard(
                self.out, self.job, shard, lambda log: self._samples(shard, log, counter, suspicion)
            )

    def _exact_rows(self, networks: Components) -> dict[str, int]:
        task, most = self.kind.task, rows_at_once()
        spec = task.check({**task.warm_up(), "model": self.job.spec.model})
        (item, *_) = task.items(spec, "")
        process = task.process(self._pipeline, spec, item, lambda *_: None)
        return {"max_rows": most, "exact_rows": exact_rows(process, networks, most)}

    def _samples(
        self, shard: int, log: ShardLog, counter: Counter, suspicion: Suspicion | None
    ) -> Iterator[Sample]:
        """In the order of the items, a few under way at a time; under suspicion, one."""
        at_once = self._at_once if suspicion is None else 1
        rejected = Rejected(self.out, self.job, shard)
        waiting: deque[_Started] = deque()
        coming = read_items(self.out, shard)
        try:
            while True:
                while len(waiting) < at_once and (item := next(coming, None)) is not None:
                    started = self._start(item, log, suspicion, keep_rejected=not rejected.full)
                    if started is None:
                        counter.add(made=False)
                    else:
                        waiting.append(started)
                if not waiting:
                    return
                sample = self._finish(waiting.popleft(), log, rejected)
                counter.add(made=sample is not None)
                if sample is not None:
                    yield sample
        finally:
            for each in waiting:
                each.future.cancel()

    def _start(
        self, item: Item, log: ShardLog, suspicion: Suspicion | None, *, keep_rejected: bool
    ) -> _Started | None:
        """Read what the item is made from and submit its process; note why not."""
        try:
            if item.error is not None:
                raise InvalidInput(item.error)
            if suspicion is not None:
                suspicion.refuse(item)
                suspicion.under_way(alone=item)
            making = making_of(self.job.spec, item, read_files(item, Path(self.job.root)))
            process = making.process(self._pipeline, self._gates, keep_rejected=keep_rejected)
        except Exception as error:
            log.fail(item, reason_of(error))
            return None
        return _Started(making, self._loop.submit(process, exact=True))

    def _finish(self, started: _Started, log: ShardLog, rejected: Rejected) -> Sample | None:
        """Wait for the item and encode it; note why it has no sample."""
        making, item = started.making, started.making.item
        try:
            found = started.future.result()
            if self._gates:
                log.judged.append(making.judged(found))
                png = None if rejected.full else making.rejected_png(found)
                if png is not None:
                    rejected.keep(item, png)
            if found.result is None:
                log.fail(item, refusal(found), len(found.attempts))
                return None
            settings: dict[str, Any] = {"forward_rows": self._rows["exact_rows"]}
            if self.job.spec.mixed_precision is not Precision.NO:
                settings["mixed_precision"] = self.job.spec.mixed_precision.value
            made = making.encode(self._pipeline, found, settings)
            return Sample(item.key, self.kind.files_of(made), making.meta(made, found))
        except Exception as error:
            log.fail(item, reason_of(error))
            return None


def settled_rows(out: Path, find: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Rows of a forward, found by the first worker and kept: they decide the last bits of all."""
    path = out / ROWS
    try:
        kept: dict[str, int] = json.loads(path.read_bytes())
        return kept
    except (OSError, ValueError):
        rows = find()
        with atomic_file(path, overwrite=True) as stream:
            stream.write(json.dumps(rows).encode())
        return rows


def reason_of(error: Exception) -> str:
    """Why an item failed. Raises what is no item's fault: a full disk, a worker that stops."""
    if isinstance(error, CancelledError) or (isinstance(error, OSError) and error.errno in FULL):
        raise error
    if isinstance(error, InvalidInput | ModelRefused | Deadly):
        return str(error)
    # the message of a foreign error may quote what it choked on
    return f"{type(error).__name__} while it was made"
