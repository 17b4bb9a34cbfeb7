"""Runs a data set job: freezes the manifest, makes the shards that are missing, says what came out.

Whatever stops it, running it again goes on: shards that are whole are kept, the others are made
again to the same bytes.
"""

import fcntl
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.errors import Conflict, MedphantomError, ModelRefused
from gen.store.catalogue import resolve
from jobs.bars import Bars, Count, bars
from jobs.data_stores import data_set, is_named
from jobs.runner.deaths import forgive
from jobs.runner.freeze import freeze
from jobs.runner.judges import check_gates, teach
from jobs.runner.kinds import kind_of
from jobs.runner.ledger import SHARDS, note_file, survey, sweep, write_errors
from jobs.runner.progress import forget, under_way
from jobs.runner.report import write_report
from jobs.runner.spec import Job, JobSpec, read_job, refuse_other
from jobs.runner.worker import Outcome, make_here
from jobs.settings import Settings
from jobs.tasks.served import fits

LOOK_S = 0.5  # between looks at what is under way


class Stopped(MedphantomError):
    """The job cannot go on now: the disk is full, the model is gone. Run it again later."""


@dataclass(frozen=True)
class Crew:
    """Who makes a job's shards.

    Args:
        workers: processes that each hold the model; None is one for each GPU, or else for each
            host. 0 works in this process, without Ray.
        threads: of each worker on a CPU; None shares a host's CPUs out, and beside a GPU is 1.
        address: of a Ray cluster, all of whose hosts see the folders; None is this machine.
    """

    workers: int | None = None
    threads: int | None = None
    address: str | None = None


@dataclass
class Tally:
    """Items of finished shards."""

    made: int = 0
    failed: int = 0

    def add(self, made: int, failed: int) -> None:
        """Of a shard."""
        self.made += made
        self.failed += failed


def run_job(
    spec: JobSpec,
    *,
    crew: Crew = Crew(),
    retry_failed: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a job to its end, or go on with it; what came out, as OUT/report.json has it.

    Args:
        spec: what is made, and where.
        crew: who makes it.
        retry_failed: make shards again in which items failed.
        on_outcome: told of each shard that is made.

    Raises:
        InvalidInput, ModelRefused: the spec, its manifest or its model is wrong.
        Conflict: the folder holds another job, or another process is at work in it.
        Stopped: no more can be made now, such as with a full disk.
    """
    spec = _placed(spec)
    out = Path(spec.out)
    _check_model(spec)
    check_gates(spec)
    with _full_disk(out), bars() as drawn:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            job = _begin(spec, out, drawn)
            teach(job, out, drawn)
            _make_missing(job, out, drawn, crew, retry_failed, on_outcome)
            drawn.say("writing errors.jsonl and report.json")
            write_errors(out, job)
            return write_report(out, job)


def _placed(spec: JobSpec) -> JobSpec:
    """With absolute paths, so that it is the same job from wherever it is run."""
    manifest = spec.manifest
    moved = {"path": _place(manifest.path)}
    if manifest.root is not None:
        moved["root"] = _place(manifest.root)
    placed: dict[str, Any] = {
        "manifest": manifest.model_copy(update=moved),
        "out": str(Path(spec.out).absolute()),
    }
    if spec.gates is not None and "reference" in spec.gates:
        placed["gates"] = {**spec.gates, "reference": _place(str(spec.gates["reference"]))}
    return spec.model_copy(update=placed)


def _place(name: str) -> str:
    """A path, or a data set of a configured store, as an absolute path."""
    settings = Settings()
    if is_named(name) and name.partition(":")[0] in settings.stores:
        return str(data_set(name, settings.stores, settings.copies))
    return str(Path(name).absolute())


def _check_model(spec: JobSpec) -> None:
    task = kind_of(spec.task).task
    if spec.task == "null":
        return
    resolve(spec.model)
    if not fits(task, spec.model):
        raise ModelRefused(
            f"model is {spec.model!r}, which is of another task than {spec.task}, whose models are"
            f" of {task.model_task}; see `medphantom models list`"
        )


def _begin(spec: JobSpec, out: Path, drawn: Bars) -> Job:
    """The job of the folder, which is this one, or becomes it."""
    job = read_job(out)
    if job is not None:
        refuse_other(job, spec, out)
    elif any((out / SHARDS).glob("*.tar")):
        raise Conflict(f"{out} holds shards of a job that is not known; name another folder")
    sweep(out)
    forget(out)
    (out / SHARDS).mkdir(exist_ok=True)
    if job is None:
        drawn.say("reading the manifest")
        job = freeze(spec, out)
    return job


def _make_missing(
    job: Job,
    out: Path,
    drawn: Bars,
    crew: Crew,
    retry_failed: bool,
    on_outcome: Callable[[Outcome], None],
) -> None:
    tally, pending = Tally(), []
    for shard, note in survey(out, job):
        if note is None or (retry_failed and note.num_failed):
            pending.append(shard)
            note_file(out, shard).unlink(missing_ok=True)
        else:
            tally.add(note.num_made, note.num_failed)
    there = tally.made + tally.failed
    if there:
        drawn.say(f"{there} of {job.num_items} results are there from before")
    if not pending:
        return
    with (
        _watched(out, tally, drawn.counter("making", job.num_items, there)),
        _forgiving(out),
        closing(_outcomes(out, pending, crew)) as outcomes,
    ):
        for outcome in outcomes:
            if outcome.stop:
                raise Stopped(
                    f"{outcome.stop}. {tally.made + tally.failed} of {job.num_items} results are"
                    f" kept in {out}; mend that and run the job again, it goes on"
                )
            tally.add(outcome.made, outcome.failed)
            on_outcome(outcome)


@contextmanager
def _forgiving(out: Path) -> Iterator[None]:
    """Forget the deaths over shards at an end that somebody chose."""
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        forgive(out)
        raise
    forgive(out)


def _outcomes(out: Path, pending: Sequence[int], crew: Crew) -> Generator[Outcome, None, None]:
    if crew.workers == 0:
        yield from make_here(out, pending, crew.threads)
        return
    from jobs.runner.on_ray import cluster, make_on_ray

    with cluster(crew.workers, crew.threads, crew.address) as pool:
        yield from make_on_ray(out, pending, pool)


@contextmanager
def _watched(out: Path, tally: Tally, count: Count) -> Iterator[None]:
    """Show what is finished and under way until the block ends."""
    end, most = threading.Event(), 0

    def show(unfinished: bool) -> None:
        nonlocal most
        made, failed = under_way(out) if unfinished else (0, 0)
        failed += tally.failed
        # a shard's own count is gone a moment before the shard is counted
        most = max(most, tally.made + made + failed) if unfinished else tally.made + failed
        count(most, failed)

    def look() -> None:
        while not end.wait(LOOK_S):
            show(unfinished=True)

    watcher = threading.Thread(target=look, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        end.set()
        watcher.join()
        show(unfinished=False)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it if this process dies.

    Raises:
        Conflict: somebody else holds it.
    """
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another process is at work in {out}; wait for it, or stop it"
            ) from error
        yield


@contextmanager
def _full_disk(out: Path) -> Iterator[None]:
    """Say in a line what the system cannot write."""
    try:
        yield
    except OSError as error:
        raise Stopped(
            f"{out} cannot be written: {error.strerror}; make room and run the job again"
        ) from error
