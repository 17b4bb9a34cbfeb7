"""Longer torments of a data set job: `make faults`."""

import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_process import JobProcess, digests, null_spec, write_prompts

from gen.data.samples import read_tar
from jobs.runner.runner import Crew, Stopped, run_job
from jobs.runner.spec import read_spec

pytestmark = pytest.mark.faults

ITEMS, SHARD = 1000, 20
WORK = {"params": {"num_inference_steps": 400}, "shard_size": SHARD}


def test_thirty_kills_lose_and_change_nothing(tmp_path: Path) -> None:
    draw = random.Random(1)
    manifest = write_prompts(tmp_path, ITEMS)
    calm = null_spec(tmp_path, manifest, tmp_path / "calm", **WORK)
    run_job(read_spec(calm), crew=Crew(workers=0, threads=1))
    out = tmp_path / "disturbed"
    spec = null_spec(tmp_path, manifest, out, **WORK)
    victims = ["worker"] * 22 + ["driver"] * 4 + ["ray"] * 4  # drivers take their time to start
    draw.shuffle(victims)
    killed: Counter[str] = Counter()
    with JobProcess(spec, out, "--workers", "2", "--threads", "1") as job:
        for victim in victims:
            job.wait_for_work(1)
            if killed.total() % 3 == 0:  # let it come on now and then, or nothing would be done
                job.wait_for_notes(job.notes() + 1)
            time.sleep(draw.uniform(0, 1.5))
            while not job.kill(victim):
                job.wait_for_work(1)
            killed[victim] += 1
            if victim != "worker":
                job.wait_for_end()
        assert job.notes() < ITEMS // SHARD, "the job was done before the last kill"
        while not job.running() or job.wait() != 0:
            job.start()
    print(f"killed: {dict(killed)}")  # noqa: T201
    assert killed.total() == 30
    assert digests(out) == digests(tmp_path / "calm")
    made = Counter(
        sample.meta["id"] for tar in (out / "shards").glob("*.tar") for sample in read_tar(tar)
    )
    assert len(made) == ITEMS
    assert set(made.values()) == {1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_stops_cleanly_and_resumes(
    workers: int, tmp_path: Path, small_disk: Path
) -> None:
    manifest = write_prompts(tmp_path, 100)
    calm = null_spec(tmp_path, manifest, tmp_path / "calm", shard_size=10)
    run_job(read_spec(calm), crew=Crew(workers=0, threads=1))
    spec = read_spec(null_spec(tmp_path, manifest, small_disk / "out", shard_size=10))
    crew = Crew(workers=workers, threads=1)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (700 * 1024))
    with pytest.raises(Stopped, match="No space left on device"):
        run_job(spec, crew=crew)
    kept = digests(small_disk / "out")
    assert 0 < len(kept) < 10
    for tar in (small_disk / "out/shards").glob("*.tar"):  # nothing torn is visible
        assert len(list(read_tar(tar))) == 10
    ballast.unlink()
    assert run_job(spec, crew=crew)["made"] == 100
    assert digests(small_disk / "out") == digests(tmp_path / "calm")


def test_a_disk_that_is_full_from_the_start_is_said(tmp_path: Path, small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    spec = null_spec(tmp_path, write_prompts(tmp_path, 10), small_disk / "out")
    with pytest.raises(Stopped, match="No space left on device"):
        run_job(read_spec(spec), crew=Crew(workers=0))
