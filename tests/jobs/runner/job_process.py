"""`medphantom jobs run` as users start it, in a process of its own, to be killed in any part."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import yaml

NO_START = (
    b"or with --workers 0 without Ray\n"  # what a driver says in the end if Ray does not start
)
WAIT_S = 600  # on a machine that does other things, too


def write_prompts(folder: Path, count: int) -> Path:
    """A manifest of so many prompts."""
    path = folder / "prompts.csv"
    lines = [f"item-{number},chest x-ray {number}" for number in range(count)]
    path.write_text("\n".join(["id,prompt", *lines]) + "\n")
    return path


def null_spec(folder: Path, manifest: Path, out: Path, **fields: Any) -> Path:
    """A spec file of the task that measures the runner."""
    spec = {"task": "null", "model": "null", "manifest": {"path": str(manifest)}, "out": str(out)}
    path = folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump({**spec, **fields}))
    return path


class JobProcess:
    """A job that is started anew as often as it ends before it is done."""

    def __init__(self, spec: Path, out: Path, *options: str) -> None:
        self.out = out
        self._command = [
            str(Path(sys.executable).with_name("medphantom")),
            "jobs",
            "run",
            str(spec),
            *options,
        ]
        self.log = spec.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        for pid in self.tree():
            _kill(pid)
        if self.process is not None:
            self.process.wait()

    def start(self) -> None:
        """Start the command."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, preexec_fn=_heed_ctrl_c
            )

    def wait(self) -> int:
        """Wait for its end; its exit code. Started again where Ray did not start in time."""
        assert self.process is not None
        while (code := self.process.wait(WAIT_S)) != 0 and self.log.read_bytes().endswith(NO_START):
            self.start()
        return code

    def running(self) -> bool:
        """Whether the driver lives."""
        return self.process is not None and self.process.poll() is None

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def notes(self) -> int:
        """Shards that are done."""
        return len(list((self.out / "shards").glob("*.json")))

    def wait_for_notes(self, count: int) -> None:
        """Wait until so many shards are done, or the job has ended."""
        deadline = time.monotonic() + WAIT_S
        while self.notes() < count and self.running():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
            if not self.running() and self.log.read_bytes().endswith(NO_START):
                self.start()

    def wait_for_work(self, count: int) -> None:
        """Wait until so many workers are there; a driver that has ended is started again."""
        deadline = time.monotonic() + WAIT_S
        while len(self.workers()) < count:
            assert time.monotonic() < deadline, self.log.read_text()
            if not self.running():
                self.start()
            time.sleep(0.1)

    def wait_for_end(self) -> None:
        """Wait for a driver that cannot go on."""
        assert self.process is not None
        assert self.process.wait(60) != 0

    def workers(self) -> list[int]:
        """Its processes that make shards."""
        return [pid for pid in self.tree()[1:] if "MapWorker" in _title(pid)]

    def tree(self) -> list[int]:
        """The driver and everything it started, directly or not."""
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(path.parent.name))
        tree = [self.process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree

    def kill(self, victim: str) -> int:
        """Kill -9 a "worker", the "driver", or all of "ray"; how many processes that were."""
        driver, *others = self.tree()
        if victim == "driver":
            pids = [driver]
        elif victim == "ray":
            pids = others
        else:
            pids = self.workers()[:1]
        for pid in pids:
            _kill(pid)
        return len(pids)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of each shard, as its note has it."""
    notes = sorted((out / "shards").glob("*.json"))
    return {note.stem: json.loads(note.read_text())["sha256"] for note in notes}


def _heed_ctrl_c() -> None:
    """As at a desk: what a shell starts in the background does not, nor do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
