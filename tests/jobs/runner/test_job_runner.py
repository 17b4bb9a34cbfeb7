"""A job in this process: what it writes, what it survives, and what it says of bad rows."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_process import digests, write_prompts
from typer.testing import CliRunner

from gen.data.images import read_image
from gen.data.samples import Sample, read_tar
from gen.errors import Conflict, InvalidInput, ModelRefused
from jobs.cli import app
from jobs.runner.ledger import note_file, tar_file
from jobs.runner.runner import Crew, run_job
from jobs.runner.spec import JobSpec, checked

HERE = Crew(workers=0, threads=1)


def null(manifest: Path, out: Path, **fields: Any) -> JobSpec:
    task = {"task": "null", "model": "null", "shard_size": 4}
    return checked({**task, "manifest": {"path": str(manifest)}, "out": str(out), **fields})


def samples(out: Path) -> list[Sample]:
    return [each for tar in sorted((out / "shards").glob("*.tar")) for each in read_tar(tar)]


def errors(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]


def test_every_row_becomes_a_sample(tmp_path: Path) -> None:
    report = run_job(null(write_prompts(tmp_path, 10), tmp_path / "out"), crew=HERE)
    assert (report["made"], report["failed"], report["shards"]) == (10, 0, 3)
    made = samples(tmp_path / "out")
    assert [each.meta["id"] for each in made] == [f"item-{i}" for i in range(10)]
    for each in made:
        assert each.meta["synthetic"] is True
        assert each.meta["split"] == "train"
        assert each.meta["seed"] == each.meta["record"]["seed"]
        assert read_image(each.files["png"]).pixels.shape == (32, 32)
    assert len({each.files["png"] for each in made}) == 10
    assert not list((tmp_path / "out").rglob("*.part"))


def test_bits_depend_on_neither_shards_nor_company(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 7)
    found = []
    for size in (1, 3, 100):
        out = tmp_path / f"out-{size}"
        run_job(null(manifest, out, shard_size=size), crew=HERE)
        found.append({each.key: each.files for each in samples(out)})
    assert found[0] == found[1] == found[2]


def test_a_finished_job_makes_nothing_again(tmp_path: Path) -> None:
    spec = null(write_prompts(tmp_path, 6), tmp_path / "out")
    first = run_job(spec, crew=HERE)
    made: list[Any] = []
    assert run_job(spec, crew=HERE, on_outcome=made.append) == first
    assert made == []


def test_the_manifest_is_not_needed_to_resume(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 6)
    spec = null(manifest, tmp_path / "out")
    run_job(spec, crew=HERE)
    before = digests(tmp_path / "out")
    note_file(tmp_path / "out", 1).unlink()
    manifest.write_text("")
    run_job(spec, crew=HERE)
    assert digests(tmp_path / "out") == before


@pytest.mark.parametrize("harm", ["note gone", "tar gone", "bit flipped", "cut short", "note torn"])
def test_a_shard_that_is_not_whole_is_made_again(harm: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = null(write_prompts(tmp_path, 10), out)
    run_job(spec, crew=HERE)
    before, data = digests(out), tar_file(out, 1).read_bytes()
    if harm == "note gone":
        note_file(out, 1).unlink()
    elif harm == "tar gone":
        tar_file(out, 1).unlink()
    elif harm == "bit flipped":
        tar_file(out, 1).write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    elif harm == "cut short":
        tar_file(out, 1).write_bytes(data[:-512])
    else:
        note_file(out, 1).write_text('{"shard": 1')
    made: list[int] = []
    run_job(spec, crew=HERE, on_outcome=lambda outcome: made.append(outcome.shard))
    assert made == [1]
    assert digests(out) == before
    assert tar_file(out, 1).read_bytes() == data


def test_another_spec_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 4)
    run_job(null(manifest, tmp_path / "out"), crew=HERE)
    with pytest.raises(Conflict, match="seed is 0 there and 1 here"):
        run_job(null(manifest, tmp_path / "out", seed=1), crew=HERE)


def test_two_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    spec = null(write_prompts(tmp_path, 4), tmp_path / "out")
    refused: list[Exception] = []

    def again(_: object) -> None:
        try:
            run_job(spec, crew=HERE)
        except Conflict as error:
            refused.append(error)

    run_job(spec, crew=HERE, on_outcome=again)
    assert "another process is at work" in str(refused[0])


def test_a_failing_row_has_a_line_and_stops_nobody(tmp_path: Path) -> None:
    rows = [
        {"id": "good", "prompt": "a"},
        {"id": "empty", "prompt": ""},
        {"id": "wrong", "prompt": "b", "params": {"side": 3}},
        {"id": "long", "prompt": "c" * 1001},
        {"id": "last", "prompt": "d"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join([*map(json.dumps, rows), "{torn"]))
    report = run_job(null(tmp_path / "t.jsonl", tmp_path / "out"), crew=HERE)
    assert (report["made"], report["failed"]) == (2, 4)
    said = {line["id"]: line["reason"] for line in errors(tmp_path / "out")}
    assert list(said) == ["empty", "wrong", "long", "row-0000006"]
    assert "neither a prompt nor labels" in said["empty"]
    assert said["wrong"].startswith("side: ")
    assert "ccc" not in said["long"]
    assert "no JSON" in said["row-0000006"]
    assert sum(report["reasons"].values()) == 4


def test_rows_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    manifest = tmp_path / "t.csv"
    (tmp_path / "images").mkdir()
    manifest.write_text("id,image\na,images/a.png\n")
    spec = checked(
        {
            "task": "anomaly",
            "manifest": {"path": str(manifest)},
            "params": {"method": "single_step", "threshold": 0.5},
            "out": str(tmp_path / "out"),
        }
    )
    assert run_job(spec, crew=HERE)["failed"] == 1
    assert "cannot be opened" in errors(tmp_path / "out")[0]["reason"]
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/a.png")
    assert run_job(spec, crew=HERE)["failed"] == 1
    assert run_job(spec, crew=HERE, retry_failed=True)["made"] == 1
    (sample,) = samples(tmp_path / "out")
    assert sample.picture == "png"
    assert {"map.npy", "overlay.png"} <= sample.files.keys()
    assert sample.meta["source"] == "images/a.png"


def test_chest_xrays_come_from_prompts_and_labels(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,labels\nnormal chest,\n,pneumonia\n")
    spec = checked(
        {
            "task": "generate",
            "model": tiny_model,
            "manifest": {"path": str(tmp_path / "t.csv")},
            "params": {"num_inference_steps": 2},
            "n": 2,
            "out": str(tmp_path / "out"),
        }
    )
    assert run_job(spec, crew=HERE)["made"] == 4
    made = samples(tmp_path / "out")
    assert [each.meta["labels"] for each in made] == [["Normal"]] * 2 + [["Pneumonia"]] * 2
    assert "pneumonia" in made[2].meta["prompt"]
    assert len({each.meta["seed"] for each in made}) == 4
    assert made[0].meta["operation"] == "synthesise"


def test_a_model_of_another_task_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    spec = checked(
        {
            "task": "large",
            "model": "cxr-mini",
            "manifest": {"path": str(write_prompts(tmp_path, 1))},
            "out": str(tmp_path / "out"),
        }
    )
    with pytest.raises(ModelRefused, match="of another task than large"):
        run_job(spec, crew=HERE)
    assert not (tmp_path / "out").exists()


def test_gates_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    spec = null(write_prompts(tmp_path, 1), tmp_path / "out", gates={"colour": 1})
    with pytest.raises(InvalidInput, match="gates"):
        run_job(spec, crew=HERE)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_report_and_status_agrees(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 5)
    (tmp_path / "job.json").write_text(null(manifest, tmp_path / "out").model_dump_json())
    run = CliRunner().invoke(app, ["jobs", "run", str(tmp_path / "job.json"), "--workers", "0"])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)
    assert report["made"] == 5
    status = CliRunner().invoke(app, ["jobs", "status", str(tmp_path / "out")])
    assert json.loads(status.stdout) == {**report, "under_way": 0}


def test_the_command_ends_with_one_where_rows_failed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,prompt\na,\nb,x\n")
    (tmp_path / "job.json").write_text(null(tmp_path / "t.csv", tmp_path / "out").model_dump_json())
    run = CliRunner().invoke(app, ["jobs", "run", str(tmp_path / "job.json"), "--workers", "0"])
    assert run.exit_code == 1
    assert "errors.jsonl" in run.stderr


def test_what_a_folder_without_a_job_is_told(tmp_path: Path) -> None:
    status = CliRunner().invoke(app, ["jobs", "status", str(tmp_path)])
    assert status.exit_code == 2
    assert "holds no job yet" in status.stderr


def test_a_wrong_manifest_leaves_no_job_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    (tmp_path / "t.csv").write_text("id,prompt\na,1\na,2\n")
    with pytest.raises(InvalidInput, match="which row 1 has already"):
        run_job(null(tmp_path / "t.csv", tmp_path / "out"), crew=HERE)
    (tmp_path / "t.csv").write_text("id,prompt\na,1\nb,2\n")
    assert run_job(null(tmp_path / "t.csv", tmp_path / "out"), crew=HERE)["made"] == 2
    assert threading.active_count() <= before + 2  # engines are stopped
