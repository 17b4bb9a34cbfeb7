"""A job on a real Ray cluster: the same bits, whoever makes them and whatever dies."""

import json
from pathlib import Path

import pytest
from job_process import JobProcess, digests, null_spec, write_prompts

from jobs.runner.runner import Crew, run_job
from jobs.runner.spec import read_spec

pytestmark = pytest.mark.ray

CANARY = "canary-of-a-patient"


def test_workers_that_die_change_nothing_and_logs_tell_nothing(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 60)
    manifest.write_text(manifest.read_text().replace("chest x-ray", CANARY))
    work = {"shard_size": 5, "params": {"num_inference_steps": 200}}
    here = null_spec(tmp_path, manifest, tmp_path / "here", **work)
    run_job(read_spec(here), crew=Crew(workers=0, threads=1))
    out = tmp_path / CANARY
    spec = null_spec(tmp_path, manifest, out, **work)
    with JobProcess(spec, out, "--workers", "2", "--threads", "1") as job:
        job.wait_for_notes(2)
        assert job.kill("worker") == 1
        assert job.wait() == 0, job.log.read_text()
    assert digests(out) == digests(tmp_path / "here")
    logs = [path for path in Path("/tmp/ray").glob("session_2*/logs/**/*") if path.is_file()]
    assert logs
    mine = [path for path in logs if path.stat().st_mtime >= spec.stat().st_mtime]
    quoting = [path.name for path in mine if CANARY.encode() in path.read_bytes()]
    assert quoting == []


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    work = {"shard_size": 5, "params": {"num_inference_steps": 2000}}
    spec = null_spec(tmp_path, write_prompts(tmp_path, 60), out, **work)
    with JobProcess(spec, out, "--workers", "1", "--threads", "1") as job:
        job.wait_for_notes(2)
        assert job.interrupt() == 130, job.log.read_text()
        assert "Traceback" not in job.log.read_text()
        kept = digests(out)
        assert 2 <= len(kept) < 12
        job.start()
        assert job.wait() == 0
    after = digests(out)
    assert {name: after[name] for name in kept} == kept
    assert json.loads((out / "report.json").read_text())["made"] == 60


def test_a_row_that_kills_its_workers_is_given_up_and_the_others_are_made(tmp_path: Path) -> None:
    rows = [{"id": f"row-{number}", "prompt": "x"} for number in range(8)]
    rows[2] |= {"params": {"fatal": True}}
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    spec = null_spec(tmp_path, manifest, out, shard_size=4)
    with JobProcess(spec, out, "--workers", "1", "--threads", "1") as job:
        assert job.wait() == 1, job.log.read_text()
    (line,) = map(json.loads, (out / "errors.jsonl").read_text().splitlines())
    assert line["id"] == "row-2"
    assert "its worker died 3 times" in line["reason"]
    assert json.loads((out / "report.json").read_text())["made"] == 7


def test_the_death_of_all_of_ray_ends_the_driver_with_a_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    work = {"shard_size": 5, "params": {"num_inference_steps": 2000}}
    spec = null_spec(tmp_path, write_prompts(tmp_path, 60), out, **work)
    with JobProcess(spec, out, "--workers", "1", "--threads", "1") as job:
        job.wait_for_notes(1)
        assert job.kill("ray") > 3
        assert job.wait() == 1
        log = job.log.read_text()
    assert "Ray has died; run the job again, it goes on" in log
    assert "Traceback" not in log
    assert ".cc:" not in log
