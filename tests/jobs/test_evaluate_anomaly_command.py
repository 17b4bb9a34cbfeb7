"""`medphantom evaluate anomaly` on drawn chests: what is found, kept and refused."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from typer.testing import CliRunner

from gen.anomaly.detections import Detections
from gen.errors import InvalidInput
from jobs import evaluate_anomaly
from jobs.anomaly.detectors import DetectorConfig, detectors
from jobs.anomaly.sets import AnomalySets
from jobs.bars import bars
from jobs.cli import app
from jobs.device import Precision

SIDE, SIZE = 128, 64
FIELDS = ("file", "split", "findings", "prompt", "patient_id", "original_dataset", "boxes")
BOX = {"label": "Pneumonia", "x": 30, "y": 44, "w": 20, "h": 28}


def chest(seed: int, sick: bool = False) -> np.ndarray:
    """A bright torso in black air with two dark lungs, (SIDE, SIDE) uint8; white in BOX if sick."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    torso = np.hypot(y / 0.6, x / (0.45 + 0.02 * rng.normal())) < 1
    lungs = np.hypot(y / 0.3, (np.abs(x) - 0.18) / 0.13) < 1
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2)
    grey = torso * (np.where(lungs, 70, 170) + 8 * noise / noise.std())
    if sick:
        grey[44:72, 30:50] = 240
    return np.clip(gaussian_filter(grey, 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Healthy chests of every split, sick ones with a box, and one whose box is cut off."""
    folder = tmp_path_factory.mktemp("chests")
    rows = [("train", False)] * 12 + [("val", False)] * 4 + [("test", False)] * 6
    rows += [("test", True)] * 5
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for i, (split, sick) in enumerate(rows):
            Image.fromarray(chest(i, sick)).save(folder / f"{i}.png")
            table.writerow({
                "file": f"{i}.png", "split": split, "prompt": "a chest", "patient_id": i,
                "findings": "Pneumonia" if sick else "No Finding", "original_dataset": "drawn",
                "boxes": json.dumps([BOX]) if sick else "",
            })  # fmt: skip
        wide = np.pad(chest(99), ((0, 0), (100, 100)))
        Image.fromarray(wide).save(folder / "wide.png")
        table.writerow({
            "file": "wide.png", "split": "test", "prompt": "a chest", "patient_id": 99,
            "findings": "Pneumonia", "original_dataset": "drawn",
            "boxes": json.dumps([{**BOX, "x": 0}]),
        })  # fmt: skip
    return folder


def evaluate(data: Path, out: Path, *more: str) -> Any:
    arguments = ["evaluate", "anomaly", "--data", str(data), "--out", str(out)]
    arguments += ["--detectors", "pca,autoencoder", "--image-size", str(SIZE), "--map-size", "32"]
    arguments += ["-n", "8", "--components", "4", "--training-steps", "2"]
    return CliRunner().invoke(app, [*arguments, *more])


def test_figures_and_pictures_come_out_and_what_is_trained_is_kept(
    data: Path, tmp_path: Path
) -> None:
    done = evaluate(data, tmp_path)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["images"] == {
        "calibration": 4, "healthy": 6, "planted": 8, "boxed": 5, "healthy_beside_boxed": 6,
    }  # fmt: skip
    assert (figures["mask_rule"], figures["map_size"]) == ("half", 32)
    assert any("have boxes outside the square" in line for line in figures["omissions"])
    pca, gap = figures["detectors"]["pca"], figures["gaps"]["autoencoder - pca"]
    for what, estimate in pca["figures"].items():
        assert estimate["low"] <= estimate["value"] <= estimate["high"], what
        other = figures["detectors"]["autoencoder"]["figures"][what]["value"]
        assert gap[what]["value"] == pytest.approx(other - estimate["value"])
    assert pca["figures"]["auroc_boxed"]["value"] == 1
    assert pca["figures"]["pointing"]["value"] == 1
    assert pca["figures"]["pointing_by_habit"]["value"] < 0.5
    assert pca["figures"]["aupro"]["value"] > 0.15  # of chance
    assert pca["network_calls_per_image"] == 0
    assert figures["detectors"]["autoencoder"]["network_calls_per_image"] == 1
    with Image.open(tmp_path / "pca.png") as sheet:
        assert sheet.size == (5 * SIZE, (6 + 5) * SIZE)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    assert len(kept) == 2
    again = json.loads(evaluate(data, tmp_path).stdout)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")} == kept
    assert again["detectors"]["pca"]["figures"] == pca["figures"]


def test_a_detector_that_knows_the_answer_has_the_best_figures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = AnomalySets(data, SIZE, 0)
    healthy = sets.examine(sets.healthy("test"))
    planted = sets.planted(healthy, 8)
    originals = {
        lesioned.numpy().tobytes(): original
        for lesioned, original in zip(planted.lesioned.images, planted.originals, strict=True)
    }

    def oracle(images: Tensor, seeds: Any) -> Detections:
        restored = [originals.get(each.numpy().tobytes(), each) for each in images]
        answer = torch.stack(restored)
        return Detections((answer - images).abs()[:, 0], answer, len(images))

    monkeypatch.setattr(evaluate_anomaly, "detectors", lambda *_: {"oracle": oracle})
    config = evaluate_anomaly.AnomalyConfig(
        data, DetectorConfig(("oracle",), SIZE, tmp_path), num_planted=8, map_size=SIZE
    )
    with bars() as drawn:
        figures = evaluate_anomaly.measure_anomaly(config, drawn)
    found = figures["detectors"]["oracle"]["figures"]
    for what in ("restoration", "healing", "auroc_planted", "aupro"):
        assert found[what]["value"] == pytest.approx(1, abs=0.01), what
    assert found["average_precision"]["value"] > 0.95  # lesions fade out
    assert found["dice_at_healthy_threshold"]["value"] > 0.95
    assert found["auroc_boxed"]["value"] == 0.5  # a copy everywhere: no map tells them apart


def test_lesions_follow_from_the_seed_and_boxes_from_the_manifest(data: Path) -> None:
    first, again, other = (AnomalySets(data, SIZE, seed) for seed in (0, 0, 1))
    masks = [
        each.planted(each.examine(each.healthy("test")), 8).masks for each in (first, again, other)
    ]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    boxed = first.boxed("test")
    assert boxed is not None
    assert [each.tolist() for each in boxed.boxes] == [[[22, 15, 36, 25]]] * 5


def test_partial_noise_goes_through_a_text_to_image_model(tiny_model: str, tmp_path: Path) -> None:
    config = DetectorConfig(
        ("anoddpm",), 16, tmp_path, tiny_model, noise_level=0.5, num_inference_steps=4
    )

    def nothing() -> Tensor:
        raise AssertionError

    with bars() as drawn:
        detect = detectors(config, nothing, drawn)["anoddpm"]
        images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        found = detect(images, [1, 2, 3])
        assert found.healthy.shape == images.shape
        assert found.maps.shape == (3, 16, 16)
        assert found.maps.min() >= 0
        # text once, then encoder, decoder and the lower half of four steps for each image
        assert found.num_network_calls == 1 + 3 * (1 + 1 + 2)
        alone = detect(images[1:2], [2])
        assert torch.allclose(alone.healthy, found.healthy[1:2], atol=1e-4)
        wrong = DetectorConfig(("anoddpm",), 32, tmp_path, tiny_model)
        with pytest.raises(InvalidInput, match="image_size is 32"):
            detectors(wrong, nothing, drawn)


def test_a_method_of_the_pipeline_is_measured_like_the_others(
    tiny_model: str, tmp_path: Path
) -> None:
    config = DetectorConfig(("single_step", "patchwise"), 16, tmp_path, tiny_model)
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def nothing() -> Tensor:
        raise AssertionError

    with bars() as drawn:
        made = detectors(config, nothing, drawn)
        for detect in made.values():
            found = detect(images, [1, 2])
            assert found.healthy.shape == images.shape
            assert found.maps.shape == (2, 16, 16)
            assert found.maps.min() >= 0
            alone = detect(images[1:], [2])
            assert torch.allclose(alone.maps, found.maps[1:], atol=1e-4)
            assert 2 * alone.num_network_calls == found.num_network_calls
        # of an image: text, encoder, two levels of eight draws, two decoded and compared
        assert made["single_step"](images, [1, 2]).num_network_calls == 2 * (1 + 1 + 16 + 2 + 2)
        with pytest.raises(InvalidInput, match="image_size is 32"):
            detectors(DetectorConfig(("thor",), 32, tmp_path, tiny_model), nothing, drawn)


@pytest.mark.parametrize("name", ["single_step", "anoddpm"])
def test_half_precision_changes_a_little(name: str, tiny_model: str, tmp_path: Path) -> None:
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    with bars() as drawn:
        for precision in Precision:
            config = DetectorConfig(
                (name,), 16, tmp_path, tiny_model, mixed_precision=precision, noise_level=1
            )
            made = detectors(config, lambda: images, drawn)
            found.append(made[name](images, [1, 2]).healthy)
    change = (found[1] - found[0]).abs()
    assert 0 < change.max() < 0.1


def test_what_cannot_be_measured_is_refused(data: Path, tmp_path: Path) -> None:
    for more, message in (
        (["--detectors", "pca,magic"], "detectors are 'pca,magic'"),
        (["--map-size", "48"], "map_size is 48, but must divide 64"),
        (["--rate", "1.5"], "rate is 1.5"),
    ):
        done = evaluate(data, tmp_path, *more)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
