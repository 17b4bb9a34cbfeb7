"""Whether a tiny model's images show the patients of their prompts, where the answer is known."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from gen.data.collection import Item, read_collection
from gen.denoising import make_generators
from gen.metrics.aligned import pair_similarity
from gen.models.cxr_encoder import CXREncoder
from jobs.bars import bars
from jobs.cli import app
from jobs.reidentification import (
    ReidentificationConfig,
    Target,
    compare,
    draw_targets,
    made_images,
    measure_reidentification,
)
from jobs.targets import Drawn, Pictures
from pipelines.text_to_cxr import TextToCXRPipeline

SIDE = 16  # of the tiny model's images
KINDS = (
    ("Pneumonia", "chest X-ray of a man. Findings: pneumonia."),
    ("Pneumonia", "chest X-ray of a woman. Findings: pneumonia."),
    ("No Finding", "chest X-ray of a man. Findings: no acute finding."),
    ("No Finding", "chest X-ray of a woman. Findings: no acute finding."),
)


def picture(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """A smooth random picture (side, side)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def ignore(done: int, total: int) -> None:
    """Draw no progress."""


def drawn(pixels: NDArray[np.uint8]) -> Drawn:
    item = Item(Path("x.png"), "x.png", "a chest", None, None, "train", None)
    return Drawn(item, torch.from_numpy(pixels)[None])


def test_a_model_that_remembers_is_nearer_than_others_and_a_blurred_one_is_not() -> None:
    targets = [
        Target(drawn(picture(i)), [drawn(picture(10 + 2 * i)), drawn(picture(11 + 2 * i))])
        for i in range(4)
    ]

    def features(images: Tensor) -> Tensor:
        return images.flatten(1)

    remembered = [torch.stack([each.own.pixels, each.own.pixels.flip(-1)]) for each in targets]
    risks = compare(targets, remembered, pair_similarity, features, ignore)
    for made, gap, to_stranger in zip(
        risks["made"], risks["gap"], risks["gap_to_stranger"], strict=True
    ):
        assert made.max_score == pytest.approx(1, abs=1e-3)
        assert made.min_pixel_distance == made.min_feature_distance == 0
        assert gap.max_score > 0.2
        assert to_stranger.max_score > 0.2
        assert max(gap.min_pixel_distance, to_stranger.min_pixel_distance) < 0

    # grey is nearer to anybody than people are to one another, but to nobody in particular
    grey = [torch.full((2, 1, 128, 128), 128, dtype=torch.uint8)] * 4
    risks = compare(targets, grey, pair_similarity, features, ignore)
    assert max(each.mean_pixel_distance for each in risks["gap"]) < 0
    mean = np.mean([each.mean_pixel_distance for each in risks["gap_to_stranger"]])
    assert abs(mean) < 0.02
    assert max(each.max_score for each in risks["gap_to_stranger"]) == pytest.approx(0, abs=0.1)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Of each kind four patients with two images each."""
    folder = tmp_path / "patients"
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "findings", "prompt", "patient_id"])
        for number in range(32):
            kind, patient = number // 8, number // 2
            findings, prompt = KINDS[kind]
            Image.fromarray(picture(number)).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", "train", findings, prompt, patient])
    return folder


def test_other_patients_are_of_the_same_prompt_and_then_of_the_same_findings(
    patients: Path,
) -> None:
    config = ReidentificationConfig(patients, num_prompts=4, seeds_per_prompt=5)
    items = read_collection(patients, "train").items
    targets = draw_targets(items, config, Pictures(SIDE), ignore)
    assert {target.own.item.prompt for target in targets} == {prompt for _, prompt in KINDS}
    for target in targets:
        names = [each.item.patient for each in target.others]
        assert len(set(names)) == 5
        assert target.own.item.patient not in names
        prompts = [each.item.prompt == target.own.item.prompt for each in target.others]
        assert prompts == [True] * 3 + [False] * 2
        assert all(each.item.labels == target.own.item.labels for each in target.others)


def test_images_of_a_prompt_do_not_depend_on_the_batches_it_shares(tiny_folder: Path) -> None:
    pipeline = TextToCXRPipeline.from_pretrained(tiny_folder)
    config = ReidentificationConfig(Path(), seeds_per_prompt=3, num_inference_steps=2, seed=7)
    prompts = ["no acute finding", "pneumonia", "a child"]
    made = list(made_images(pipeline, prompts, config))
    assert [each.shape for each in made] == [(3, 1, SIDE, SIDE)] * 3
    alone = pipeline(
        prompts[1], num_inference_steps=2, generator=make_generators([7 + 3 + 2]), output_type="pt"
    ).images
    expected = (alone.mean(1) * 255).round()
    assert (made[1][2].float() - expected).abs().max() <= 1
    assert len({each.numpy().tobytes() for group in made for each in group}) == 9


def test_reidentification_gives_each_figure_beside_other_patients(
    tiny_folder: Path, patients: Path, encoder: str
) -> None:
    config = ReidentificationConfig(
        patients,
        str(tiny_folder),
        num_prompts=4,
        seeds_per_prompt=2,
        reidentifier=encoder,
        encoder=encoder,
        num_inference_steps=2,
    )
    with bars() as drawn_bars:
        figures = measure_reidentification(config, drawn_bars)
    assert figures["share_of_others_with_same_prompt"] == 1
    assert figures["reidentifier"] == encoder
    for each in figures["figures"].values():
        gap = each["made"]["value"] - each["other_patients"]["value"]
        assert each["gap"]["value"] == pytest.approx(gap)
        assert each["gap"]["low"] <= each["gap"]["value"] <= each["gap"]["high"]


def invoke(*options: Any) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["evaluate", "reidentification", *map(str, options)])


def test_the_command_prints_one_record_and_writes_it(
    tiny_folder: Path, patients: Path, encoder: str, tmp_path: Path
) -> None:
    out = tmp_path / "f.json"
    few = ("--num-prompts", 4, "--seeds-per-prompt", 1, "--num-inference-steps", 1)
    common = ("--data", patients, "--model", tiny_folder, "--out", out)
    result = invoke(*common, *few, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(out.read_text())
    assert "making and comparing images: 4 of 4" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "none"), "split is 'none'"),
        (("--num-prompts", "5"), "num_prompts is 5, but"),
        (("--num-prompts", "4", "--seeds-per-prompt", "16"), "only 15 other"),
        (("--reidentifier", "cxr-mini"), "neither the safetensors"),
        (("--model", "cxr-encoder-mini"), "which has no vae, text_encoder"),
        (("--out", "/nowhere/f.json"), "/nowhere does not exist"),
    ],
)
def test_what_is_missing_is_named(
    tiny_folder: Path, patients: Path, options: tuple[str, ...], message: str
) -> None:
    result = invoke("--data", patients, "--model", tiny_folder, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
