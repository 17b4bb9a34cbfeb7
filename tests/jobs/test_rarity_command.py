"""Sets whose rarity is known: common pictures are smooth, rare ones striped."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app

NUM_COMMON, NUM_RARE = 200, 50


def picture(rng: np.random.Generator, rare: bool) -> NDArray[np.uint8]:
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    smooth = np.array(coarse.resize((128, 128), Image.Resampling.BICUBIC))
    if rare:
        width = int(rng.integers(4, 30))
        smooth[:, np.arange(128) // width % 2 == 0] //= 4
    return smooth


def write(folder: Path, rng: np.random.Generator, kinds: list[bool]) -> Path:
    folder.mkdir()
    for i, rare in enumerate(kinds):
        Image.fromarray(picture(rng, rare)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures with the table of their scores, a plain set and a rare one."""
    folder = tmp_path_factory.mktemp("rarity")
    rng = np.random.default_rng(0)
    kinds = [False] * NUM_COMMON + [True] * NUM_RARE
    real = write(folder / "data", rng, kinds)
    with (real / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", "findings", "prompt", "patient_id"])
        for i in range(len(kinds)):
            table.writerow([f"{i}.png", "train", "No Finding", "a chest", i])
    with (folder / "scores.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "group", "score", "quantile", "group_quantile"])
        for i in range(len(kinds)):
            quantile = (i + 0.5) / len(kinds)
            table.writerow([f"{i}.png", "all", quantile, quantile, quantile])
    write(folder / "plain", rng, [False] * 40)
    write(folder / "rare", rng, [True] * 40)
    return folder


def measure(sets: Path, *more: str) -> Any:
    arguments = ["evaluate", "rarity", str(sets / "plain"), str(sets / "rare")]
    arguments += ["--real", str(sets / "data"), "--scores", str(sets / "scores.csv")]
    return CliRunner().invoke(app, [*arguments, "--cache", str(sets / "cache"), *more])


def test_the_set_with_the_rare_is_rarer_and_nearer_to_the_real_tail(sets: Path) -> None:
    done = measure(sets, "--tail", "0.2", "--out", str(sets / "figures.json"))
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures == json.loads((sets / "figures.json").read_text())
    assert figures["tail_images"] == NUM_RARE
    plain, rare = figures["sets"]["plain"], figures["sets"]["rare"]
    real, tail = figures["sets"]["real"], figures["sets"]["real tail"]
    for figure in ("average_knn", "outlier_factor"):
        assert rare[figure]["value"] > plain[figure]["high"]
        assert tail[figure]["value"] > real[figure]["high"]
    assert rare["frechet_to_tail"]["high"] < plain["frechet_to_tail"]["low"]
    assert tail["frechet_to_tail"]["value"] < rare["frechet_to_tail"]["value"]
    assert plain["precision"]["value"] > 0.5


def test_what_cannot_be_measured_is_refused(sets: Path, tmp_path: Path) -> None:
    few = measure(sets, "--tail", "0.05")
    assert few.exit_code == 2
    assert "which is 12 of 250 real images, but 40 are needed" in few.stderr
    assert measure(sets, "--tail", "1.5").exit_code == 2
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    wrong = measure(sets, "--scores", str(tmp_path / "other.csv"))
    assert wrong.exit_code == 2
    assert "train minority-scores" in wrong.stderr
