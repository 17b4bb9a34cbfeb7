"""A plan of a small data set: what it says, and that the job it writes makes just that."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from gen.data.samples import read_shards, shards_in
from gen.errors import InvalidInput
from jobs.augment.plan import How, PlanConfig, make_plan, rows_file, write_plan
from jobs.augment.planning import Target
from jobs.cli import app
from jobs.runner.spec import read_spec

SIDES = (160, 160, 64, 160)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two with a mass, of which one is small, and two with a nodule; one of each is in `val`."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for index, side in enumerate(SIDES):
        name = f"{index}.png"
        pixels = np.random.default_rng(index).integers(0, 255, (side, side))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        finding = "Mass" if index in (0, 2) else "Nodule"
        rows.append((name, "train", finding, f"p{index}", "PA", "50", "F", "a chest"))
    rows.append(("0.png", "val", "Hernia", "p9", "PA", "50", "F", "a chest"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ("file", "split", "findings", "patient_id", "view", "age", "sex", "prompt")
        writer.writerows([names, *rows])
    return folder


def config(data: Path, **changes: object) -> PlanConfig:
    fields = {
        "data": data,
        "target": Target(minimum=5),
        "spec": data.parent / "plan.yaml",
        "out": data.parent / "out",
        "num_inference_steps": 2,
        "gates": False,
    }
    return PlanConfig(**(fields | changes))


def test_a_plan_says_what_each_class_gets(data: Path) -> None:
    plan = make_plan(config(data))
    assert plan.before == {"Mass": 2, "Nodule": 2}  # Hernia is not in the split
    assert plan.after == {"Mass": 5, "Nodule": 5}
    assert Counter(row["labels"][0] for row in plan.rows) == {"Mass": 3, "Nodule": 3}
    assert len({row["id"] for row in plan.rows}) == 6
    assert {row["sex"] for row in plan.rows} == {"F"}


def test_small_images_are_described_and_not_varied(data: Path) -> None:
    plan = make_plan(config(data, how=How.VARY))
    done = {row["id"]: row["params"]["operation"] for row in plan.rows}
    assert {name: how for name, how in done.items() if how == "synthesise"}.keys() == {
        name for name in done if name.startswith("2.png")
    }
    assert all(("image" in row) == (row["params"]["operation"] == "vary") for row in plan.rows)


def test_both_ways_take_turns(data: Path) -> None:
    plan = make_plan(config(data, how=How.BOTH, target=Target(minimum=20)))
    ways = Counter(row["params"]["operation"] for row in plan.rows)
    assert ways["synthesise"] >= ways["vary"] > len(plan.rows) / 4


def test_rare_images_are_made_from_words_alone(data: Path) -> None:
    plan = make_plan(config(data, minority=0.8))
    assert plan.spec.task == "generate"
    assert plan.spec.params["minority"] == 0.8
    with pytest.raises(InvalidInput, match=r"minority is 0\.8"):
        make_plan(config(data, minority=0.8, how=How.VARY))


def test_gates_judge_by_the_same_data_unless_told_otherwise(data: Path) -> None:
    assert make_plan(config(data, gates=True)).spec.gates == {"reference": str(data)}
    assert make_plan(config(data)).spec.gates is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": Target(minimum=1)}, "nothing is lacking"),
        ({"split": "test"}, "split is 'test'"),
    ],
)
def test_what_cannot_be_planned_is_said(data: Path, changes: dict, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make_plan(config(data, **changes))


def test_a_data_set_without_labels_cannot_be_planned(data: Path) -> None:
    (data / "manifest.csv").unlink()
    with pytest.raises(InvalidInput, match="has no labels"):
        make_plan(config(data, split=None))


def test_a_plan_is_not_overwritten(data: Path) -> None:
    made = config(data)
    write_plan(make_plan(made), made.spec)
    with pytest.raises(InvalidInput, match="exists"):
        write_plan(make_plan(made), made.spec)


def test_what_is_planned_is_made_and_exported(data: Path, tmp_path: Path) -> None:
    spec, out = tmp_path / "rare.yaml", tmp_path / "rare"
    arguments = [
        *("augment", "plan", "--data", str(data), "--minimum", "4", "--how", "both"),
        *("--steps", "2", "--no-gates", "--spec", str(spec), "--out", str(out)),
    ]
    planned = CliRunner().invoke(app, arguments)
    assert planned.exit_code == 0, planned.stderr
    said = json.loads(planned.stdout)
    assert said["items"] == 4
    assert said["seconds"] > 0
    assert said["bytes"] > 1000
    assert yaml.safe_load(spec.read_text())["task"] == read_spec(spec).task == "augment"
    assert rows_file(spec).is_file()
    ran = CliRunner().invoke(app, ["augment", "run", str(spec), "--workers", "0"])
    assert ran.exit_code == 0, ran.stderr
    samples = list(read_shards(shards_in(out)))
    assert Counter(each.meta["labels"][0] for each in samples) == {"Mass": 2, "Nodule": 2}
    assert {each.meta["operation"] for each in samples} == {"synthesise", "vary"}
    assert all(each.meta["split"] == "train" and each.meta["synthetic"] for each in samples)
    assert {each.meta["source"] for each in samples} - {None} <= {f"{i}.png" for i in range(4)}
    target = tmp_path / "images"
    arguments = ["augment", "export", str(out), "--format", "imagefolder", "--out", str(target)]
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["samples"] == 4
    assert len(list((target / "train/images").iterdir())) == 4
    told = CliRunner().invoke(app, ["augment", "report", str(out)])
    assert "No gate judged" in told.stderr
    assert (out / "report.html").is_file()
