"""Levels of rarity of a tiny patch model: scored crops, its card, an image that asks for one."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gen.data.provenance import Record
from gen.guidance.minority import MinorityCalibration
from gen.store.card import read_card, write_card
from jobs import minority_calibration
from jobs.cli import app

RECIPE = """
# what else a recipe says is not read
num_steps: 3
tissue: {spacings: {"large/*": 0.5, "tiles/b_*": 0.25}, magnifications: [0.5, 1.0]}
tile_size: 40
balance: 0.0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


@pytest.fixture
def model(tiny_large_model: Path, tmp_path: Path) -> Path:
    """With a card to keep a calibration in."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_large_model, folder)
    write_card(
        folder, id="tiny", task="embedding-to-image", modality="SM", image_size=32,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, calibration={"kept": 1}, limits=("random",),
    )  # fmt: skip
    return folder


def invoke(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout, and stderr in one line."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def test_a_level_is_scored_calibrated_asked_for_and_measured(
    stained: Path, model: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "scores.csv"
    scoring = ("train", "minority-scores", "--data", stained, "--model", model, "--draws", 1)
    code, out, err = invoke(*scoring, "--recipe", recipe, "--crops", 60, "--out", table)
    assert code == 0, err
    figures = json.loads(out)
    assert figures["encoder"] == json.loads((model / "model_index.json").read_text())["encoder"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert figures["num_images"] == len(rows) > 50
    assert {row["microns_per_pixel"] for row in rows} == {"0.5", "1.0"}
    # the region is 200 x 140 pixels at 0.5, and only it is large enough for crops not mirrored
    region = [row for row in rows if row["file"] == "large/a.png"]
    assert all(0 <= int(row["x"]) <= 140 - 32 and 0 <= int(row["y"]) <= 200 - 32 for row in region)
    assert len(
        {(row["file"], row["x"], row["y"], row["microns_per_pixel"]) for row in rows}
    ) == len(rows)

    strengths = {"boost_and_skip": (1.0, 1.5), "self_guided": (0.0, 0.5), "classifier": (0.0,)}
    monkeypatch.setattr(minority_calibration, "TISSUE_STRENGTHS", strengths)
    monkeypatch.setattr(minority_calibration, "LEAST_RANGE", 0.0)
    calibrating = ("train", "minority-calibration", "--data", stained, "--scores", table)
    code, out, err = invoke(*calibrating, "--model", model, "--steps", 9, "-n", 8)
    assert code == 0, err
    card = read_card(model)
    assert card is not None
    assert card.calibration["kept"] == 1
    calibration = MinorityCalibration.model_validate(card.calibration["minority"])
    assert set(calibration.strengths) == {"boost_and_skip", "self_guided"}  # it has no classifier
    assert set(calibration.scores) >= {"all", "0.5 microns a pixel"}

    # of random networks nobody knows which levels can be reached: the least that is calibrated
    level = calibration.levels["boost_and_skip"][0]
    path = tmp_path / "rare.ome.tif"
    asking = ("large", "--model", model, "--text", "stroma", "--size", "96x64", "--steps", 9)
    asking += ("--minority", level, "--allow-common", "--minority-method", "boost_and_skip")
    code, out, err = invoke(*asking, "--seed", 1, "--out", path)
    assert code == 0, err
    settings = Record.from_file(path).settings
    assert json.loads(out)["settings"] == settings
    assert Record.from_file(Path(json.loads(out)["preview"])).settings == settings
    assert settings["minority"] == level
    assert (settings["minority_method"], settings["minority_strength"]) == ("boost_and_skip", 1.0)
    assert settings["minority_distance"] == "encoder"
    assert 0 <= float(settings["minority_reached"] or 0) <= 1


def test_what_is_missing_is_named(stained: Path, model: Path, recipe: Path, tmp_path: Path) -> None:
    scoring = ("train", "minority-scores", "--data", stained, "--model", model)
    scoring += ("--out", tmp_path / "scores.csv")
    code, _, err = invoke(*scoring)
    assert code == 2
    assert "gen/training/recipes/histo-mini.yaml" in err
    code, _, err = invoke(*scoring, "--recipe", recipe, "--encoder", "cxr-encoder-mini")
    assert code == 2
    assert "leave it out" in err
    code, _, err = invoke(*scoring, "--recipe", recipe, "--split", "test")
    assert code == 2
    assert "'val', held out" in err
    (tmp_path / "small.yaml").write_text(RECIPE.replace("tile_size: 40", "tile_size: 32"))
    code, _, err = invoke(*scoring, "--recipe", tmp_path / "small.yaml", "--crops", 4)
    assert code == 0, err

    table = tmp_path / "chests.csv"
    table.write_text("file,group,score,quantile,group_quantile\na,b,1,0.5,0.5\n")
    figures = {"distance": "latent", "encoder": None, "noise_level": 0.6, "num_draws": 1}
    table.with_suffix(".json").write_text(json.dumps(figures))
    calibrating = ("train", "minority-calibration", "--data", stained, "--scores", table)
    code, _, err = invoke(*calibrating, "--model", model)
    assert code == 2
    assert "does not say how tissue was cut" in err
    code, _, err = invoke(
        "large", "--model", model, "--text", "a", "--minority", 0.9, "--out", tmp_path / "a.tif"
    )
    assert code == 2
    assert "medphantom train minority-calibration" in err
