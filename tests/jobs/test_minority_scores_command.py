"""Scores of a tiny model that answers zero: what an image loses is all of it."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from typer.testing import CliRunner

from gen.data.collection import read_collection
from gen.training.captioned import encode_images
from gen.types import Process
from jobs import minority_chests
from jobs.bars import bars
from jobs.cli import app
from jobs.minority_scores import Kept, ScoresConfig, ranks, score_images
from jobs.targets import Pictures
from pipelines.text_to_cxr import TextToCXRPipeline

NUM_IMAGES = 7


@pytest.fixture
def mute_folder(tiny_parts: dict[str, Any], tmp_path: Path) -> Path:
    """A model of x0 that answers zero."""
    unet = copy.deepcopy(tiny_parts["unet"])
    for parameter in unet.conv_out.parameters():
        parameter.zero_()
    parts = {**tiny_parts, "unet": unet, "scheduler": DDPMScheduler(prediction_type="sample")}
    TextToCXRPipeline(**parts).save_pretrained(tmp_path / "mute")
    return tmp_path / "mute"


def config_of(data: Path, model: Path, tmp_path: Path, **changes: Any) -> ScoresConfig:
    return ScoresConfig(
        **{
            "data": data,
            "out": tmp_path / "scores.csv",
            "model": str(model),
            "distance": "latent",
            "batch_size": 3,
            **changes,
        }
    )


def score(config: ScoresConfig) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The figures and the table."""
    with bars() as drawn:
        figures = score_images(config, drawn)
    with config.out.open(newline="") as file:
        return figures, list(csv.DictReader(file))


def test_the_table_holds_what_each_image_loses_and_how_many_lose_less(
    chests: Path, mute_folder: Path, tmp_path: Path
) -> None:
    figures, rows = score(config_of(chests, mute_folder, tmp_path))
    drawn = list(Pictures(16).usable(read_collection(chests, "train").items))
    vae = TextToCXRPipeline.from_pretrained(mute_folder).vae
    latents = encode_images(vae, torch.stack([each.pixels for each in drawn]), torch.device("cpu"))
    lost = latents.square().flatten(1).mean(1).tolist()
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(1, NUM_IMAGES + 1)]
    assert [float(row["score"]) for row in rows] == pytest.approx(lost, rel=1e-3)
    order = np.argsort(np.argsort(lost))
    wanted = (order + 0.5) / NUM_IMAGES
    assert [float(row["quantile"]) for row in rows] == pytest.approx(wanted.tolist(), abs=1e-3)
    # too few of a kind to have quantiles of their own
    assert {row["group"] for row in rows} == {"other"}
    assert figures["groups"]["other"]["images"] == figures["num_images"] == NUM_IMAGES
    assert any("broken.png" in line for line in figures["omissions"])


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(
    chests: Path, mute_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(config_of(chests, mute_folder, tmp_path, distance="pixel"))[1]
    calls = 0
    original = minority_chests.score_latents

    def dying(*arguments: Any) -> Process[Tensor]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return original(*arguments)

    config = config_of(chests, mute_folder, tmp_path, distance="pixel", out=tmp_path / "cut.csv")
    monkeypatch.setattr(minority_chests, "score_latents", dying)
    with pytest.raises(KeyboardInterrupt):
        score(config)
    assert not config.out.exists()
    kept = tmp_path / ".cut.csv.part.jsonl"
    kept.write_text(kept.read_text() + '["4.png", 0.1')  # cut off in mid-write
    monkeypatch.setattr(minority_chests, "score_latents", original)
    settings = json.loads(kept.read_text().split("\n")[0])
    assert set(Kept(config.out, settings).scores) == {"1.png", "2.png", "3.png"}
    again = score(config)[1]
    assert [row["score"] for row in again] == [row["score"] for row in whole]
    assert not kept.exists()


def test_scores_of_other_settings_are_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    Kept(out, {"num_draws": 5}).add({"1.png": 1.0})
    assert Kept(out, {"num_draws": 5}).scores == {"1.png": 1.0}
    assert Kept(out, {"num_draws": 2}).scores == {}


def test_equals_share_their_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 1.0, 2.0])).tolist() == [0.875, 0.25, 0.25, 0.625]


def test_the_command_prints_figures_and_says_what_is_wrong(
    chests: Path, mute_folder: Path, tmp_path: Path
) -> None:
    arguments = ["train", "minority-scores", "--data", str(chests), "--model", str(mute_folder)]
    arguments += ["--out", str(tmp_path / "scores.csv")]
    done = CliRunner().invoke(app, [*arguments, "--draws", "1"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["distance"] == "encoder"
    assert figures["encoder"] == "cxr-encoder-mini"
    wrong = CliRunner().invoke(app, [*arguments, "--noise-level", "1.5"])
    assert wrong.exit_code == 2
    assert "noise_level is 1.5" in wrong.stderr
