"""The card that training leaves: what it counts, and that the finished model can be calibrated."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gen.store.card import TrainingData, read_card, write_card
from gen.store.loading import load_components
from gen.training.first_card import LIMITS, UNKNOWN, UNKNOWN_BASE, training_data
from gen.training.inpainting import LIMIT, InpaintingConfig, train_inpainting
from gen.training.text_to_image import TextToImageConfig, train_text_to_image
from jobs.cli import app

OWN = TrainingData(name="radiographs", licence=UNKNOWN, images=6)
EARLIER = TrainingData(name="earlier", licence="CC0-1.0", images=7)


def trained(kind: str, data: Path, base: Path, output: Path) -> Path:
    """Train for two steps."""
    fields: dict[str, Any] = {
        "data": data, "output": output, "base_model": str(base), "num_steps": 2, "batch_size": 3,
        "learning_rate": 1e-3, "num_warmup_steps": 0,
    }  # fmt: skip
    if kind == "inpainting":
        return train_inpainting(InpaintingConfig.model_validate(fields), lambda _: None)
    config = TextToImageConfig.model_validate({**fields, "image_size": 16, "max_length": 16})
    return train_text_to_image(config, lambda _: None)


@pytest.fixture
def data(radiographs: Path, tmp_path: Path) -> Path:
    """The folder under a name that a card can be asked for."""
    folder = tmp_path / "radiographs"
    folder.symlink_to(radiographs)
    return folder


@pytest.mark.parametrize(("kind", "seen"), [("inpainting", 3), ("text-to-image", 6)])
def test_a_trained_model_says_what_it_was_trained_on(
    kind: str, seen: int, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = trained(kind, data, tiny_folder, tmp_path / "my model")
    card = read_card(folder)
    assert card is not None
    assert card.id == "my-model"
    assert card.training_data == (OWN.model_copy(update={"images": seen}),)
    assert card.images_seen == 2 * 3
    assert card.task == "text-to-image"
    assert (card.image_size, card.channels) == (16, 3)
    recipe = json.loads(card.recipe)
    assert recipe["learning_rate"] == 1e-3
    assert str(tmp_path) not in json.dumps({**recipe, "base_model": None})
    limits = (*LIMITS, UNKNOWN_BASE)
    assert card.limits == ((LIMIT, *limits) if kind == "inpainting" else limits)
    assert load_components(folder)  # its hashes are those of the files


def test_what_a_base_was_trained_on_is_told_as_well(
    data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    write_card(
        base, id="base", task="text-to-image", modality="DX", image_size=16,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(EARLIER,),
        recipe="none", device="cpu", images_seen=0, evaluation={}, limits=("random",),
    )  # fmt: skip
    card = read_card(trained("text-to-image", data, base, tmp_path / "out"))
    assert card is not None
    assert card.training_data == (OWN, EARLIER)
    assert card.limits == LIMITS


def test_rows_are_counted_by_data_set_and_licence() -> None:
    rows = [
        {"file": "a", "original_dataset": "NIH", "licence": "free"},
        {"file": "b", "original_dataset": "", "licence": ""},
        {"file": "c", "original_dataset": "NIH", "licence": "free"},
        {"file": "c", "original_dataset": "NIH", "licence": "free"},
        {"file": "d", "original_dataset": "NIH", "licence": "CC0"},
    ]
    found = {(each.name, each.licence): each.images for each in training_data(rows, "mine")}
    assert found == {("NIH", "free"): 2, ("mine", UNKNOWN): 1, ("NIH", "CC0"): 1}


def test_a_trained_model_can_be_calibrated(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = trained("inpainting", data, tiny_folder, tmp_path / "out")
    options = ["--data", str(data), "--model", str(folder), "--method", "single_step", "-n", "2"]
    result = CliRunner().invoke(app, ["anomaly", "calibrate", *options])
    assert result.exit_code == 0, result.output
    card = read_card(folder)
    assert card is not None
    assert card.calibration["anomaly"]["methods"]["single_step"]["num_images"] == 2
