"""`medphantom evaluate variations`: what is drawn and trained, once, and what is said of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from gen.data.images import read_colour
from gen.data.provenance import Record
from gen.engine import run
from gen.errors import InvalidInput
from gen.training.tile_classifier import TileClassifierConfig, TrainingTiles
from jobs.bars import bars
from jobs.classifier_runs import ClassifierRuns
from jobs.cli import app
from jobs.device import Precision
from jobs.drawn_variations import DrawnVariations, VariationConfig
from jobs.fractions import parse_fractions
from jobs.variations import ARMS, TileUtilityConfig, measure_variations
from pipelines.large_image import LargeImagePipeline
from pipelines.tile_variation import tile_variation

STEPS = 2


def tile(seed: int, purple: bool) -> NDArray[np.uint8]:
    """(40, 40, 3), blobs of one of two stains."""
    coarse = np.random.default_rng(seed).integers(60, 200, (16, 16, 1), dtype=np.uint8)
    stained = np.concatenate([coarse, coarse // 2, coarse] if purple else [coarse] * 3, 2)
    return np.array(Image.fromarray(stained).resize((40, 40), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiles of each class to train on, two held out, and a turned copy of a held-out one."""
    folder = tmp_path_factory.mktemp("tiles")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("file", "split", "findings"))
        writer.writeheader()
        for i in range(13):
            kind, split = ("tumour", "stroma")[i % 2], "test" if i in range(8, 12) else "train"
            pixels = tile(8, True).transpose(1, 0, 2) if i == 12 else tile(i, kind == "tumour")
            Image.fromarray(pixels).save(folder / f"{i}.png")
            writer.writerow({"file": f"{i}.png", "split": split, "findings": kind})
    return folder


@pytest.fixture(scope="module")
def config(
    tiles: Path, tiny_large_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> TileUtilityConfig:
    out = tmp_path_factory.mktemp("out") / "kept"
    drawing = VariationConfig(str(tiny_large_model), STEPS)
    return TileUtilityConfig(tiles, out, fractions=(0.25, 1.0), num_seeds=2, num_variations=1,
                         image_size=16, num_training_steps=1,
                         drawing=drawing)  # fmt: skip


def measure(config: TileUtilityConfig) -> dict[str, Any]:
    with bars() as drawn:
        return measure_variations(config, drawn)


def files_of(config: TileUtilityConfig) -> dict[Path, int]:
    """Every file and when it was written."""
    return {path: path.stat().st_mtime_ns for path in config.out.rglob("*") if path.is_file()}


def test_every_arm_is_measured_and_nothing_is_done_twice(config: TileUtilityConfig) -> None:
    figures = measure(config)
    assert figures["num_groups"] == 12
    assert figures["num_training_tiles"] == 8
    assert figures["num_held_out_tiles"] == 4
    assert figures["omissions"] == ["1 training tile(s) are copies of held-out ones"]
    assert figures["classes"] == ["stroma", "tumour"]
    assert [each["fraction"] for each in figures["results"]] == [0.25, 1.0]
    for each in figures["results"]:
        assert set(each["arms"]) == set(ARMS)
        for gap, found in each["gaps"].items():
            one, other = (each["arms"][name] for name in gap.split(" - "))
            for name in ("accuracy", "macro_auroc"):
                expected = one[name]["value"] - other[name]["value"]
                assert found[name]["value"] == pytest.approx(expected)
                assert found[name]["low"] <= found[name]["high"]
    kept = files_of(config)
    assert len([path for path in kept if path.suffix == ".npy"]) == 2 * 2 * 4
    assert len([path for path in kept if path.suffix == ".png"]) == 8
    assert measure(config) == figures
    assert files_of(config) == kept


def test_only_tiles_of_the_fraction_are_varied_and_the_rest_is_drawn_when_asked_for(
    config: TileUtilityConfig, tmp_path: Path
) -> None:
    few = replace(config, out=tmp_path / "few", fractions=(0.2,))
    measure(few)
    drawn = {path.name for path in (few.out / "variations").iterdir()}
    assert 2 <= len(drawn) <= 4  # one tile of each class for each seed
    more = replace(few, num_variations=2)
    measure(more)
    assert len(list((more.out / "variations").iterdir())) == 2 * len(drawn)


def test_a_variation_is_the_tile_drawn_anew_and_knows_its_origin(
    config: TileUtilityConfig, tmp_path: Path
) -> None:
    pipeline = LargeImagePipeline.from_pretrained(config.drawing.model)
    original = tile(0, True)
    store = DrawnVariations(pipeline, config.drawing, tmp_path / "v")
    missing = store.missing([original, tile(1, True)], 2)
    assert [number for _, number in missing] == [0, 1, 0, 1]
    assert list(store.draw(missing, lambda *_: None)) == [4]
    assert store.missing([original], 2) == []
    record = Record.from_file(store.file(original, 1))
    assert record == store.record(original, 1)
    assert record.seed != store.record(original, 0).seed
    drawing = tile_variation(
        pipeline,
        original,
        record.seed,
        num_inference_steps=config.drawing.num_inference_steps,
        guidance_scale=config.drawing.guidance_scale,
        microns_per_pixel=config.drawing.microns_per_pixel,
    )
    alone = run(drawing, pipeline.networks)
    together = store.read(original, 1)
    assert together.shape == original.shape
    assert np.abs(alone.astype(int) - together).max() <= 1  # forwards shared with other tiles
    assert np.abs(store.read(original, 0).astype(int) - together).max() > 1
    # whoever asks for another drawing gets another file
    for other in (
        replace(config.drawing, seed=1),
        replace(config.drawing, guidance_scale=2.0),
        replace(config.drawing, mixed_precision=Precision.BF16),
        replace(config.drawing, microns_per_pixel=1.0),
        replace(config.drawing, num_inference_steps=3),
    ):
        elsewhere = DrawnVariations(pipeline, other, tmp_path / "v")
        assert elsewhere.missing([original], 1)


def test_work_that_was_interrupted_goes_on_where_it_stopped(
    config: TileUtilityConfig, tmp_path: Path
) -> None:
    pipeline = LargeImagePipeline.from_pretrained(config.drawing.model)
    tiles = [tile(i, False) for i in range(10)]
    store = DrawnVariations(pipeline, config.drawing, tmp_path / "v")
    told: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        told.append((done, total))

    next(store.draw(store.missing(tiles, 1), report))
    assert told == [(8, 10)]
    list(store.draw(store.missing(tiles, 1), report))
    assert told == [(8, 10), (2, 2)]
    assert all(read_colour(store.file(each, 0)).shape == (40, 40, 3) for each in tiles)


def test_a_training_is_kept_for_those_pictures_and_that_seed_alone(tmp_path: Path) -> None:
    runs = ClassifierRuns(tmp_path / "runs", 2, TileClassifierConfig(image_size=16, num_steps=1))
    pictures = torch.zeros(4, 2, 3, 16, 16, dtype=torch.uint8)
    labels = torch.arange(4) % 2
    held_out = pictures[:2, 0]
    runs.probabilities(TrainingTiles(pictures, labels, False), held_out, 0)
    runs.probabilities(TrainingTiles(pictures, labels, False), held_out, 0)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    others = pictures.clone()
    others[0, 0, 0, 0, 0] = 1
    for tiles, seed in (
        (TrainingTiles(pictures, labels, False), 1),
        (TrainingTiles(pictures, labels, True), 0),
        (TrainingTiles(pictures[:, :1], labels, False), 0),
        (TrainingTiles(pictures, labels.flip(0), False), 0),
        (TrainingTiles(others, labels, False), 0),
    ):
        assert runs.probabilities(tiles, held_out, seed).shape == (2, 2)
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert runs.seconds_each(held_out) > 0


@pytest.mark.parametrize("text", ["", "a", "0", "0.5,1.5", "-0.1"])
def test_fractions_are_shares(text: str) -> None:
    assert parse_fractions("1.0, 0.05 0.2") == (0.05, 0.2, 1.0)
    with pytest.raises(InvalidInput, match="shares above 0 and at most 1, as"):
        parse_fractions(text)


def invoke(*options: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", "variations", *map(str, options)])


def test_the_command_prints_and_keeps_the_figures(
    tiles: Path, tiny_large_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (
        "--data", tiles, "--out", out, "--model", tiny_large_model, "--steps", STEPS,
        "--fractions", "0.2", "--seeds", 2, "--variations", 1, "--training-steps", 1,
        "--image-size", 16,
    )  # fmt: skip
    result = invoke(*options, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "figures.json").read_text())
    said = " ".join(result.stderr.split())
    assert "classifiers to train, at most" in said
    assert "training classifiers: 8 of 8" in said
    assert "looking for copies among tiles: 13 of 13" in said
    assert "left out: 1 training tile(s) are copies" in said
    assert invoke(*options).stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fractions", "2"), "shares above 0"),
        (("--pattern", "nothing*"), "0 files like 'nothing*'"),
        (("--label", "kind"), "no column 'kind'"),
        (("--model", "cxr-mini"), "which has no projection"),
    ],
)
def test_what_is_wrong_is_named(
    tiles: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = invoke("--data", tiles, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
