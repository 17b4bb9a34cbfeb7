"""Thresholds of a tiny model from healthy pictures: kept in its card, and what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from gen.anomaly.calibration import HEALTHY_PROMPT, AnomalyCalibration, calibration_in
from gen.store.card import read_card, write_card
from gen.store.catalogue import resolve
from jobs.cli import app


def add_card(folder: Path) -> None:
    write_card(
        folder, id="tiny", task="text-to-image", modality="DX", image_size=16,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, calibration={"kept": 1}, limits=("random",),
    )  # fmt: skip


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Validation pictures of four healthy and two sick people, one unreadable and one of train."""
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [*[("val", "No Finding")] * 4, *[("val", "Pneumonia")] * 2, ("train", "No Finding")]
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", "findings", "prompt", "patient_id"])
        for i, (split, findings) in enumerate(rows):
            smooth = gaussian_filter(rng.normal(size=(40, 30)), 3)
            pixels = np.clip(120 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", split, findings, "a chest", i])
        (folder / "broken.png").write_bytes(b"no picture")
        table.writerow(["broken.png", "val", "No Finding", "a chest", 9])
    return folder


def calibrate(data: Path, model: Path, *more: str) -> Any:
    words = ["anomaly", "calibrate", "--data", str(data), "--model", str(model)]
    return CliRunner().invoke(app, [*words, *more])


def card_of(folder: Path) -> AnomalyCalibration:
    card = read_card(folder)
    assert card is not None
    assert card.calibration["kept"] == 1
    found = calibration_in(card.calibration)
    assert found is not None
    return found


def test_the_card_says_from_which_value_on_healthy_people_are_left_out(
    people: Path, tiny_folder: Path
) -> None:
    add_card(tiny_folder)
    done = calibrate(people, tiny_folder, "--method", "single_step", "--method", "autopaint")
    assert done.exit_code == 0, done.output
    resolve(tiny_folder).check()  # hashes are still those of the files
    found = card_of(tiny_folder)
    assert set(found.methods) == {"single_step", "autopaint"}
    assert found.data == "4 healthy pictures of people, split val"
    assert found.prompt == HEALTHY_PROMPT
    assert found.methods["autopaint"].suspicious
    assert found.methods["single_step"].suspicious is None
    for points in found.methods.values():
        assert points.num_images == 4
        # of four pictures, no rate below a quarter is known
        assert set(points.pictures) == {"0.5"}
        assert points.pictures["0.5"] > 0
    figures = json.loads(done.stdout)
    assert figures["omissions"] == [
        "2 image(s) are not of healthy people; the first: 4.png",
        "1 image(s) cannot be read; the first: broken.png",
    ] or set(figures["omissions"]) == {
        "2 image(s) are not of healthy people; the first: 5.png",
        "1 image(s) cannot be read; the first: broken.png",
    }
    again = calibrate(people, tiny_folder, "--method", "single_step", "--seed", "7", "-n", "3")
    assert again.exit_code == 0, again.output
    later = card_of(tiny_folder)
    assert later.methods["autopaint"] == found.methods["autopaint"]
    assert later.methods["single_step"].num_images == 3
    assert later.data.startswith("3 healthy pictures of people, split val; 4 healthy")


def test_thresholds_do_not_follow_from_the_batch(
    people: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows in (2, 16):
        monkeypatch.setattr("jobs.device.rows_at_once", lambda rows=rows: rows)
        add_card(tiny_folder)
        done = calibrate(people, tiny_folder, "--method", "single_step")
        assert done.exit_code == 0, done.output
        found.append(card_of(tiny_folder).methods["single_step"].pictures["0.5"])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_what_would_promise_too_much_is_refused(people: Path, tiny_folder: Path) -> None:
    for prepare, more, message in (
        (False, [], "which has no card to keep thresholds in"),
        (True, ["--split", "train"], "has 1 usable healthy picture(s)"),
        (True, ["--method", "magic"], "method is 'magic', but must be one of: autopaint"),
    ):
        if prepare:
            add_card(tiny_folder)
        done = calibrate(people, tiny_folder, *more)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
    assert calibrate(people, tiny_folder, "--method", "single_step").exit_code == 0
    before = card_of(tiny_folder)
    done = calibrate(people, tiny_folder, "--method", "patchwise", "--prompt", "other words")
    assert done.exit_code == 2
    assert "calibrate all methods" in " ".join(done.stderr.split())
    assert card_of(tiny_folder) == before
