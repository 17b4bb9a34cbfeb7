"""A job on a cluster that was there before: by its address, and by `ray job submit`."""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from job_process import digests, null_spec, write_prompts

from jobs.cluster import free_port
from jobs.runner.runner import Crew, run_job
from jobs.runner.spec import read_spec

pytestmark = pytest.mark.faults

BIN = Path(sys.executable).parent
START_S, JOB_S = 120, 300


@dataclass(frozen=True)
class Head:
    """A cluster of one host.

    Args:
        address: for drivers.
        dashboard: for `ray job submit`.
        environment: with the token that both need.
    """

    address: str
    dashboard: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Started as an operator does, with a token."""
    port, door, clients = free_port(), free_port(), free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0"}
    options = [
        *("--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}"),
        *(f"--dashboard-port={door}", f"--ray-client-server-port={clients}"),
    ]
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", *options], stdout=stream, stderr=stream, env=environment
        )
    try:
        dashboard = f"http://127.0.0.1:{door}"
        deadline = time.monotonic() + START_S
        while not _answers(dashboard):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield Head(f"127.0.0.1:{port}", dashboard, environment)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    """Whether anybody does, and be it without a token."""
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A job, made before without Ray, to compare with."""
    manifest = write_prompts(tmp_path, 60)
    here = null_spec(tmp_path, manifest, tmp_path / "here", shard_size=20)
    run_job(read_spec(here), crew=Crew(workers=0, threads=1))
    return null_spec(tmp_path, manifest, tmp_path / "there", shard_size=20)


def same(folder: Path) -> bool:
    """Whether the job and its twin have the same results, and all."""
    made = json.loads((folder / "there/report.json").read_bytes())["made"]
    return made == 60 and digests(folder / "there") == digests(folder / "here")


def test_a_driver_joins_a_cluster_by_its_address(head: Head, spec: Path, tmp_path: Path) -> None:
    run = [str(BIN / "medphantom"), "jobs", "run", str(spec), "--address", head.address]
    done = subprocess.run(
        run, env=head.environment, capture_output=True, timeout=JOB_S, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert same(tmp_path)


def test_who_has_no_token_is_told_so(head: Head, spec: Path) -> None:
    run = [str(BIN / "medphantom"), "jobs", "run", str(spec), "--address", head.address]
    stranger = {**head.environment, "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    done = subprocess.run(
        run, env=stranger, capture_output=True, timeout=JOB_S, text=True, check=False
    )
    assert done.returncode == 2
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_ray_job_submit_takes_the_same_spec(head: Head, spec: Path, tmp_path: Path) -> None:
    command = [str(BIN / "medphantom"), "jobs", "run", str(spec), "--address", "auto"]
    submit = [str(BIN / "ray"), "job", "submit", "--address", head.dashboard, "--", *command]
    deadline = time.monotonic() + START_S
    while True:
        done = subprocess.run(
            submit, env=head.environment, capture_output=True, timeout=JOB_S, text=True, check=False
        )
        # on a busy machine, the agent that starts jobs comes long after the dashboard
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert same(tmp_path)
