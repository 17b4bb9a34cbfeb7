"""`medphantom bench jobs`: the runner against its bare engine, two workers against one, and kills.

Ways take turns in one process, on one Ray cluster. Loading a model and starting Ray are not timed:
they are the same for any job, and nothing for a long one.
"""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput, MedphantomError
from jobs.bars import Bars, bars
from jobs.device import peak_mb

if TYPE_CHECKING:  # torch is imported when something is measured
    from jobs.runner.spec import JobSpec
    from jobs.runner.worker import Outcome

PROMPT = "chest x-ray of a young child with pneumonia"
FEW = 1_000  # rows of a small job
RESUMED = 10_000  # of a finished one


def command(
    model: Annotated[str, typer.Option(help="Id or folder; null measures the runner alone")] = (
        "cxr-mini"
    ),
    images: Annotated[int, typer.Option(min=8, help="Of each measurement")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps of each")] = 10,
    shard_size: Annotated[int, typer.Option(min=1, help="Images of a shard")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way")] = 3,
    kills: Annotated[int, typer.Option(min=0, help="Kill -9 of a worker, over a job of 1000")] = 3,
    rows: Annotated[
        int, typer.Option(min=0, help="Also measure memory and resuming, up to so many; 100000")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Images a second of jobs over those of the bare engine, and of two workers over one.

    Both make the same images, which is checked. Workers have one thread each. Then workers of a job
    are killed, and what is lost or there twice is counted. With --rows, also how long a finished
    job of ten thousand takes to resume, and the memory of a thousand rows and of so many.
    """
    from jobs.device import device_name
    from jobs.train import revision

    with TemporaryDirectory() as folder, bars() as drawn:
        bench = _Bench(Path(folder), model, images, steps, shard_size)
        result = bench.speed(rounds, drawn)
        result |= survive(Path(folder), kills, drawn)
        if rows:
            result |= scaling(Path(folder), rows, drawn)
    result |= {"device": device_name(threads=1), "commit": revision(), "rounds": rounds}
    Console(stderr=True, highlight=False).print(
        f"runner over engine [bold]{result['runner_over_engine']:.3f}[/bold], two workers over one"
        f" [bold]{result['two_over_one_worker']:.2f}[/bold]; after {kills} kills"
        f" {result['lost']} lost, {result['twice']} twice"
    )
    if as_json:
        typer.echo(json.dumps(result))


class _Bench:
    """The same images, made by the bare engine and by jobs."""

    def __init__(self, folder: Path, model: str, images: int, steps: int, shard_size: int) -> None:
        self._folder, self._images = folder, images
        manifest = write_prompts(folder / "speed.csv", images)
        params = {"num_inference_steps": steps}
        task = "null" if model == "null" else "generate"
        self._fields = {
            "task": task, "model": model, "manifest": {"path": str(manifest)},
            "params": params, "shard_size": shard_size,
        }  # fmt: skip
        self._jobs = 0

    def speed(self, rounds: int, drawn: Bars) -> dict[str, Any]:
        """Medians of the ratios of rounds, in which the ways take turns."""
        from jobs.runner.on_ray import cluster

        rates: dict[str, list[float]] = {"engine": [], "one": [], "two": []}
        report = drawn.bar("measuring")
        with BareEngine(self._spec()) as bare, cluster(2, 1, None):
            bare.make(2)  # the first forward allocates
            for number in range(rounds):
                made: dict[str, dict[str, bytes]] = {}
                rates["engine"].append(self._timed(bare, made))
                rates["one"].append(self._run(1, made))
                rates["two"].append(self._run(2, made))
                if not made["engine"] == made["one"] == made["two"]:
                    raise MedphantomError("the ways made different images; please report it")
                report(number + 1, rounds)
        over = [a / b for a, b in zip(rates["one"], rates["engine"], strict=True)]
        two = [a / b for a, b in zip(rates["two"], rates["one"], strict=True)]
        return {
            "runner_over_engine": statistics.median(over),
            "runner_over_engine_range": [min(over), max(over)],
            "two_over_one_worker": statistics.median(two),
            "two_over_one_worker_range": [min(two), max(two)],
            "images_per_second": rates,
            "images": self._images,
        }

    def _spec(self) -> "JobSpec":
        from jobs.runner.spec import checked

        self._jobs += 1
        return checked({**self._fields, "out": str(self._folder / f"job-{self._jobs}")})

    def _timed(self, bare: "BareEngine", made: dict[str, dict[str, bytes]]) -> float:
        started = time.perf_counter()
        made["engine"] = bare.make(self._images)
        return self._images / (time.perf_counter() - started)

    def _run(self, workers: int, made: dict[str, dict[str, bytes]]) -> float:
        """Images a second of a job."""
        from gen.data.samples import read_tar
        from jobs.runner.runner import Crew, run_job

        spec = self._spec()
        outcomes: list[Outcome] = []
        crew = Crew(workers=workers, threads=1)
        run_job(spec, crew=crew, on_outcome=outcomes.append)
        made["one" if workers == 1 else "two"] = {
            sample.key: sample.files["png"] for tar in _tars(spec) for sample in read_tar(tar)
        }
        return rate_of(outcomes, workers)


class BareEngine:
    """The engine alone: no manifest, no shards, no Ray."""

    def __init__(self, spec: "JobSpec") -> None:
        import torch

        from jobs.device import rows_at_once
        from jobs.row_budget import exact_rows
        from jobs.runner.kinds import kind_of

        torch.set_num_threads(1)
        self._spec, self._kind = spec, kind_of(spec.task)
        cuda = torch.cuda.is_available()
        device, dtype = ("cuda", torch.float16) if cuda else ("cpu", torch.float32)
        task = self._kind.task
        self._pipeline = task.load(spec.model, torch.device(device), dtype)
        self._networks = task.networks(self._pipeline)
        warm = task.check({**task.warm_up(), "model": spec.model})
        process = task.process(self._pipeline, warm, task.items(warm, "")[0], lambda *_: None)
        self._max_rows = rows_at_once()
        self._exact_rows = exact_rows(process, self._networks, self._max_rows)

    def __enter__(self) -> "BareEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self._networks = {}

    def make(self, count: int) -> dict[str, bytes]:
        """The files of so many images, by their keys."""
        from gen.engine import Engine
        from jobs.runner.items import items_of
        from jobs.runner.readers import open_manifest
        from jobs.runner.rows import read_rows
        from jobs.window import windowed

        task, manifest = self._kind.task, self._spec.manifest
        rows = list(read_rows(open_manifest(manifest), manifest, ()))[:count]
        items = [item for row in rows for item in items_of(row, 1)]
        specs = [self._kind.check(self._spec, item, {}) for item in items]
        asked = [task.items(spec, "")[0] for spec in specs]
        engine = Engine(self._networks, self._max_rows, pad_rows=False, exact_rows=self._exact_rows)
        processes = (
            task.process(self._pipeline, spec, item, lambda *_: None)
            for spec, item in zip(specs, asked, strict=True)
        )
        settings = {"forward_rows": self._exact_rows}
        tickets = windowed(engine, processes, self._max_rows, exact=True)
        return {
            item.key: task.encode(self._pipeline, spec, told, ticket.result(), settings).data
            for item, spec, told, ticket in zip(items, specs, asked, tickets, strict=True)
        }


def rate_of(outcomes: "list[Outcome]", workers: int) -> float:
    """Items a second while all workers were at work.

    A shard counts with the share of its time that lies in that span.

    Raises:
        InvalidInput: the workers were never at work together.
    """
    spans: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        spans.setdefault(outcome.worker, []).append(outcome)
    begin = max(min(each.began for each in mine) for mine in spans.values())
    end = min(max(each.ended for each in mine) for mine in spans.values())
    if len(spans) != workers or end <= begin:
        raise InvalidInput(f"{workers} workers were never at work together; ask for more images")
    items = 0.0
    for each in outcomes:
        inside = min(each.ended, end) - max(each.began, begin)
        items += each.made * max(0.0, inside) / (each.ended - each.began)
    return items / (end - begin)


def survive(folder: Path, kills: int, drawn: Bars) -> dict[str, Any]:
    """Kill workers of a job of `FEW` images at random moments; what is lost, twice and changed."""
    from gen.data.samples import read_tar
    from jobs.runner.runner import Crew, run_job

    draw, left = random.Random(0), kills
    calm, disturbed = (null_spec(folder, name, FEW, steps=100) for name in ("calm", "disturbed"))
    timers: list[threading.Timer] = []

    def strike(outcome: "Outcome") -> None:
        nonlocal left
        if left > 0 and draw.random() < 0.3:
            left -= 1
            timers.append(threading.Timer(draw.uniform(0, 1), _kill, [outcome.worker]))
            timers[-1].start()

    run_job(calm, crew=Crew(workers=0, threads=1))
    drawn.say(f"killing workers {kills} times")
    run_job(disturbed, crew=Crew(workers=2, threads=1), on_outcome=strike)
    for timer in timers:
        timer.join()
    found = [
        {each.key: each.files for tar in _tars(spec) for each in read_tar(tar)}
        for spec in (calm, disturbed)
    ]
    seen = Counter(each.key for tar in _tars(disturbed) for each in read_tar(tar))
    return {
        "kills": kills - left,
        "lost": len(found[0].keys() - found[1].keys()),
        "twice": sum(count > 1 for count in seen.values()),
        "changed": sum(found[1].get(key) != files for key, files in found[0].items()),
    }


def scaling(folder: Path, many: int, drawn: Bars) -> dict[str, Any]:
    """Peak memory of driver and worker by rows, and seconds to resume a finished job."""
    peaks: dict[int, dict[str, float]] = {}
    for rows in (FEW, many):
        drawn.say(f"a job of {rows} rows")
        spec = null_spec(folder, f"rows-{rows}", rows, steps=1, shard_size=500)
        peaks[rows] = _in_child(folder, spec)["peak_mb"]
    finished = null_spec(folder, "finished", RESUMED, steps=1, shard_size=100)
    _in_child(folder, finished)
    resumed = _in_child(folder, finished)
    growth = {name: peaks[many][name] - peaks[FEW][name] for name in peaks[FEW]}
    return {
        "peak_mb": {str(rows): peak for rows, peak in peaks.items()},
        "growth_mb": growth,
        "resume_seconds": {str(RESUMED): resumed["seconds"]},
    }


def _in_child(folder: Path, spec: "JobSpec") -> dict[str, Any]:
    """Run a job in a process of its own, whose memory is the job's alone."""
    file = folder / "child.json"
    file.write_text(spec.model_dump_json())
    command = [sys.executable, "-c", "from jobs.bench_jobs import child; child()", str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def child() -> None:
    """Run the job of a file with one worker, and print its seconds and peaks of memory."""
    from jobs.runner.runner import Crew, run_job
    from jobs.runner.spec import read_spec

    peaks = {"driver": 0.0, "worker": 0.0}

    def note(outcome: "Outcome") -> None:
        peaks["worker"] = max(peaks["worker"], outcome.peak_mb)

    started = time.perf_counter()
    run_job(read_spec(sys.argv[1]), crew=Crew(workers=1, threads=1), on_outcome=note)
    seconds = time.perf_counter() - started
    peaks["driver"] = peak_mb()
    typer.echo(json.dumps({"seconds": seconds, "peak_mb": peaks}))


def null_spec(folder: Path, name: str, rows: int, steps: int, shard_size: int = 20) -> "JobSpec":
    """A job of the runner alone."""
    from jobs.runner.spec import checked

    manifest = write_prompts(folder / f"{rows}.csv", rows)
    return checked(
        {
            "task": "null", "model": "null", "manifest": {"path": str(manifest)},
            "params": {"num_inference_steps": steps, "side": 16}, "shard_size": shard_size,
            "out": str(folder / name),
        }
    )  # fmt: skip


def write_prompts(path: Path, count: int) -> Path:
    """A manifest of so many rows."""
    with path.open("w") as stream:
        stream.write("id,prompt\n")
        stream.writelines(f"row-{number},{PROMPT}\n" for number in range(count))
    return path


def _tars(spec: "JobSpec") -> list[Path]:
    return sorted(Path(spec.out, "shards").glob("*.tar"))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
