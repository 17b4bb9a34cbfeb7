"""`medphantom models` writes records to stdout, words to stderr, and refuses with code 2."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from gen.store import catalogue
from gen.store.card import write_card
from jobs.cli import app

CARD = {
    "id": "tiny",
    "task": "encoder",
    "modality": "DX",
    "image_size": 16,
    "pixel_range": (-1.0, 1.0),
    "channels": 1,
    "licence": "Apache-2.0",
    "training_data": [{"name": "noise", "licence": "CC0-1.0", "images": 1}],
    "recipe": "none",
    "device": "cpu",
    "images_seen": 0,
    "evaluation": {"fid": 400.0},
    "limits": ["random weights"],
}
run = CliRunner().invoke


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One embedded model of one network."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    config = {"_class_name": "AutoencoderTiny", "scaling_factor": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(2)}, folder / "diffusion_pytorch_model.safetensors")
    write_card(folder, **CARD)
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    return folder


def test_list_writes_one_json_line_a_model(model: Path) -> None:
    result = run(app, ["models", "list"])
    assert result.exit_code == 0
    (record,) = map(json.loads, result.stdout.splitlines())
    assert (record["id"], record["task"], record["licence"]) == ("tiny", "encoder", "Apache-2.0")
    assert "weight_sha256" in result.stderr


def test_show_prints_the_card(model: Path) -> None:
    record = json.loads(run(app, ["models", "show", "tiny"]).stdout)
    assert record["kind"] == "component"
    assert record["card"]["limits"] == ["random weights"]
    assert record["card"]["not_for_diagnosis"] is True


def test_verify_passes_an_intact_model(model: Path) -> None:
    record = json.loads(run(app, ["models", "verify", "tiny"]).stdout)
    assert (record["ok"], record["hashes"]) == (True, "match the card")


def test_verify_says_when_there_is_no_card_to_compare(model: Path) -> None:
    (model / "card.json").unlink()
    record = json.loads(run(app, ["models", "verify", str(model)]).stdout)
    assert record["hashes"] == "not compared: the model has no card"


def test_verify_refuses_a_changed_model_with_code_2_and_no_traceback(model: Path) -> None:
    (model / "config.json").write_text("{}")
    result = run(app, ["models", "verify", "tiny"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "card.json says" in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_model_is_named_with_those_that_are_known(model: Path) -> None:
    result = run(app, ["models", "show", "[bold]none"])
    assert result.exit_code == 2
    assert "'[bold]none' is unknown; embedded models: tiny" in result.stderr
