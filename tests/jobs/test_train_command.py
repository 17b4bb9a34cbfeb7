"""`medphantom train` reads its settings strictly and leaves word of what it did."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from jobs.cli import app

RECIPES = Path(__file__).parents[2] / "gen" / "training" / "recipes"
SMALL = {
    "architecture": "block", "block_size": 4, "context_channels": 8, "refine_channels": 8,
    "image_size": 32, "crop_size": 32, "num_steps": 1, "batch_size": 2, "learning_rate": 0.001,
}  # fmt: skip


def train(recipe: str, config: Path, *changes: str) -> Result:
    """Run the command with settings laid over the file."""
    options = [part for change in changes for part in ("--set", change)]
    return CliRunner().invoke(app, ["train", recipe, str(config), *options])


def test_a_run_says_where_the_model_is_and_how_it_was_made(
    radiographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL))
    result = train(
        "autoencoder", tmp_path / "c.yaml", f"data={radiographs}", f"output={tmp_path / 'out'}",
        "learning_rate=0.002",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert (Path(said["model"]) / "config.json").exists()
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    assert kept["config"]["learning_rate"] == 0.002
    assert {"revision", "torch", "device"} <= kept.keys()


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        ("speed: 3", "data=x", "speed: Extra inputs are not permitted"),
        ("num_steps: 0", "data=x", "num_steps: Input should be greater than or equal to 1"),
        ("a: [", "data=x", "no valid YAML"),
        ("num_steps: 1", "data", "must be NAME=VALUE"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, change: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    result = train("autoencoder", tmp_path / "c.yaml", change)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("autoencoder", "cxr-mini-autoencoder"),
        ("autoencoder", "cxr-mini-decoder"),
        ("text-to-image", "cxr-mini"),
        ("inpainting", "cxr-mini-inpainting"),
        ("ssl-encoder", "cxr-encoder-mini"),
        ("finding-classifier", "cxr-classifier-mini"),
    ],
)
def test_the_embedded_models_recipes_are_valid(recipe: str, name: str, tmp_path: Path) -> None:
    changes = [f"data={tmp_path}", f"output={tmp_path}"]
    if recipe == "text-to-image":
        changes.append(f"autoencoder={tmp_path}")
    if recipe == "inpainting":  # a process has one precision, and others here have chosen it
        changes.append("mixed_precision='no'")
    if name == "cxr-mini-decoder":
        changes.append(f"base_model={tmp_path}")
    result = train(recipe, RECIPES / f"{name}.yaml", *changes)
    assert "has no manifest.csv" in " ".join(result.output.split())  # all else was in order
