"""`medphantom serve` as users start it, in a process of its own, to be killed in any part."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from jobs.cluster import free_port

START_S = 180  # on a machine that does other things, too


class ServiceProcess:
    """A service over a model folder; its data outlive it.

    Args:
        folder: of its data and its log.
        model: folder of its model.
        fields: arguments of `serve.settings.AppArgs`.
    """

    def __init__(self, folder: Path, model: str, **fields: Any) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        defaults = {"models": [model], "require_keys": False, "lease_s": 3, "max_rows": 8}
        self.config = folder / "service.yaml"
        self.config.write_text(yaml.safe_dump({**defaults, **fields}))
        self.log = folder / "service.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_all()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [
            str(Path(sys.executable).with_name("medphantom")),
            "serve",
            "--port",
            self.url.rsplit(":", 1)[1],
            "--config",
            str(self.config),
        ]
        environment = {**os.environ, "MEDPHANTOM_DATA": str(self.folder / "data")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until requests can be served."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=10).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready after {START_S} s: {self.log.read_text()}")

    def pids(self, title: str) -> list[int]:
        """Processes of the service whose title has these words."""
        return [pid for pid in self._tree() if title in _title(pid)]

    def kill(self, title: str) -> int:
        """Kill -9 what has these words in its title; how many that were."""
        pids = self.pids(title)
        for pid in pids:
            _kill(pid)
        return len(pids)

    def kill_all(self) -> None:
        """Kill -9 the service with all of Ray."""
        for pid in self._tree():
            _kill(pid)
        if self.process is not None:
            self.process.wait()

    def stop(self) -> int:
        """Stop it as an administrator does; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def _tree(self) -> list[int]:
        """The service's process and everything it started, directly or not."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(path.parent.name))
        assert self.process is not None
        tree = [self.process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) * 1024
        for line in rollup.splitlines()
        if line.startswith(("Private_Clean", "Private_Dirty"))
    )


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
