"""Gates learn from a folder of real images, once, and then judge."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from scipy.ndimage import gaussian_filter

from gen.engine import run
from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.gated import judged, networks_of
from gen.models.cxr_classifier import CXRClassifier
from gen.models.cxr_encoder import CXREncoder
from jobs.bars import Bars
from jobs.gates import calibrate
from jobs.gates.calibrate import PLANTED, calibrate_gates, calibration_of
from jobs.gates.config import GatesConfig, gates_config
from jobs.gates.factory import load_gates
from jobs.gates.index_file import INDEX

SIDE = 128
BARS = Bars(Console(quiet=True), Progress(disable=True))


def chest(seed: int) -> np.ndarray:
    """Structure of its own, (SIDE, SIDE) uint8."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.5)
    pixels = (
        120 + rng.uniform(30, 36) * texture / texture.std() + 3 * rng.normal(size=texture.shape)
    )
    return pixels.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images of adults: `real` with splits, `plain` pictures; an encoder and a classifier."""
    root = tmp_path_factory.mktemp("gates")
    rows = []
    for folder in ("real", "plain"):
        (root / folder).mkdir()
    for i in range(64):
        split, name = ("train" if i < 24 else "val"), f"{i}.png"
        Image.fromarray(chest(i)).save(root / "real" / name)
        Image.fromarray(chest(i)).save(root / "plain" / name)
        rows.append((name, split, "Effusion" if i % 2 else "No Finding", f"p{i // 2}", "a chest"))
    with (root / "real/manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "split", "findings", "patient_id", "prompt"))
        writer.writerows(rows)
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(root / "encoder")
    CXRClassifier(("Normal", "Effusion", "PA"), 32, (8, 16), 8).save_pretrained(root / "classifier")
    return root


def config(world: Path, **changes: Any) -> GatesConfig:
    fields: dict[str, Any] = {
        "reference": str(world / "real"),
        "copies": {"encoder": str(world / "encoder"), "planted": 4},
        "labels": {"classifier": str(world / "classifier")},
    }
    return gates_config(fields | changes)


@pytest.fixture(scope="module")
def folder(world: Path) -> Path:
    return calibrate_gates(config(world), world / "cache", BARS)


def verdicts(world: Path, folder: Path, pixels: np.ndarray, **about: Any) -> dict[str, Verdict]:
    gates = load_gates(config(world), folder)
    image = torch.from_numpy(pixels).float()[None, None] / 255
    found = run(judged(image, gates, Subject(("Effusion",), **about)), networks_of(gates))
    return {each.gate: each for each in found}


def test_everything_a_gate_needs_is_in_one_folder(world: Path, folder: Path) -> None:
    known = calibration_of(folder)
    assert (known.training, known.held_out, known.reference) == (24, 40, "real")
    assert known.sanity is not None
    assert known.copies is not None
    assert known.labels is not None
    assert known.copies.calibration.false_alarm_rate == 0.05  # 40 are too few for a hundredth
    assert any("too few for false alarms of 1%" in note for note in known.notes)
    planted = json.loads((folder / PLANTED).read_text())
    assert {each["images"] for each in planted.values()} == {4}
    assert planted["flip"]["value"] == 1


def test_a_planted_copy_is_refused_and_another_patient_is_not(world: Path, folder: Path) -> None:
    copied = verdicts(world, folder, chest(5)[:, ::-1].copy())
    assert not copied["copies"].passed
    assert "5.png" in str(copied["copies"].reason)
    other = verdicts(world, folder, chest(1000))
    assert other["copies"].passed
    assert other["sanity"].passed
    kept = verdicts(world, folder, chest(5), source="5.png", keeps_source=True)
    assert kept["copies"].passed
    assert not verdicts(world, folder, np.full((64, 64), 90, np.uint8))["sanity"].passed


def test_an_untrained_classifier_judges_nothing_and_says_so(world: Path, folder: Path) -> None:
    labels = verdicts(world, folder, chest(1000))["labels"]
    known = calibration_of(folder).labels
    assert known is not None
    judges = {each.finding for each in known.judged if each.among == "everyone"}
    assert ("Effusion" in judges) == (not labels.unjudged)


def test_what_was_learnt_is_found_again_unless_something_differs(
    world: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it is known")

    lax = calibrate_gates(config(world, sanity={"false_alarm_rate": 0.2}), world / "cache", BARS)
    assert lax != folder
    monkeypatch.setattr(calibrate, "_sanity", never)
    assert calibrate_gates(config(world), world / "cache", BARS) == folder


def test_a_gate_can_be_left_out(world: Path) -> None:
    asked = config(world, copies=False, labels=False)
    found = calibrate_gates(asked, world / "cache", BARS)
    assert [gate.name for gate in load_gates(asked, found)] == ["sanity"]
    assert not (found / INDEX).exists()
    assert config(world, copies=True).copies is not None


def test_pictures_without_splits_are_judged_among_one_another(world: Path) -> None:
    asked = config(world, reference=str(world / "plain"), labels=False)
    known = calibration_of(calibrate_gates(asked, world / "cache", BARS))
    assert (known.training, known.held_out) == (64, 64)
    assert known.copies is not None
    assert known.copies.calibration.threshold.value < 0.9  # not each with itself
    assert any("no splits" in note for note in known.notes)


def test_too_few_images_and_no_labels_are_refused_by_the_gates_name(world: Path) -> None:
    with pytest.raises(InvalidInput, match="gate labels finds no held-out image with labels"):
        calibrate_gates(config(world, reference=str(world / "plain")), world / "cache", BARS)
    few = world / "few"
    if not few.exists():
        few.mkdir()
        for i in range(5):
            Image.fromarray(chest(i)).save(few / f"{i}.png")
    with pytest.raises(InvalidInput, match="gate copies finds no threshold"):
        calibrate_gates(config(world, reference=str(few), labels=False), world / "cache", BARS)
    with pytest.raises(InvalidInput, match="held_out_split is 'train'"):
        calibrate_gates(config(world, held_out_split="train"), world / "cache", BARS)
    with pytest.raises(InvalidInput, match=r"gates\.sanity\.false_alarm_rate"):
        config(world, sanity={"false_alarm_rate": 0})
    with pytest.raises(InvalidInput, match=r"gates\.reference"):
        gates_config({"copies": False})


def test_a_folder_of_another_encoder_or_without_its_index_is_refused(
    world: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="calibrate anew"):
        load_gates(config(world, copies={"encoder": "cxr-encoder-mini"}), folder)
    (tmp_path / "gates.json").write_bytes((folder / "gates.json").read_bytes())
    with pytest.raises(InvalidInput, match="no index"):
        load_gates(config(world), tmp_path)
