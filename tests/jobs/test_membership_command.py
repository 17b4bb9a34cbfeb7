"""What a tiny model's loss says of its training folder, where the answer is known."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from gen.data.collection import read_collection
from gen.engine import run
from gen.errors import InvalidInput
from gen.training.captioned import encode_images
from jobs.bars import bars
from jobs.cli import app
from jobs.membership import (
    MembershipConfig,
    draw_pairs,
    losses_of,
    measure_membership,
    source_of,
)
from jobs.targets import Pictures
from pipelines.text_to_cxr import TextToCXRPipeline

SIDE = 16  # of the tiny model's images


def picture(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """A smooth random picture (side, side)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A folder of pictures with its manifest; a row's `pixels` are the picture."""
    fields = ("file", "split", "findings", "prompt", "patient_id")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            (folder / row["file"]).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row["pixels"]).save(folder / row["file"])
            writer.writerow({"findings": "No Finding", "prompt": "a chest", **row})
    return folder


@pytest.fixture
def mute_folder(tiny_parts: dict[str, Any], tmp_path: Path) -> Path:
    """A model of x0 that answers zero: its loss on an image is the mean square of its latents."""
    unet = copy.deepcopy(tiny_parts["unet"])
    for parameter in unet.conv_out.parameters():
        parameter.zero_()
    scheduler = DDPMScheduler(prediction_type="sample")
    parts = {**tiny_parts, "unet": unet, "scheduler": scheduler}
    TextToCXRPipeline(**parts).save_pretrained(tmp_path / "mute")
    return tmp_path / "mute"


def measure(config: MembershipConfig) -> dict[str, Any]:
    """The figures."""
    with bars() as drawn:
        return measure_membership(config, drawn)


def ignore(done: int, total: int) -> None:
    """Draw no progress."""


def by_power(parts: dict[str, Any], pixels: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Pictures in the order of the loss that the mute model has on them."""
    small = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE))) for each in pixels]
    images = torch.from_numpy(np.stack(small))[:, None]
    latents = encode_images(parts["vae"], images, torch.device("cpu"))
    powers = latents.square().flatten(1).mean(1)
    return [pixels[i] for i in powers.argsort().tolist()]


def test_images_of_lower_loss_are_named_as_trained_on(
    tiny_parts: dict[str, Any], mute_folder: Path, tmp_path: Path
) -> None:
    ordered = by_power(tiny_parts, [picture(seed) for seed in range(20)])
    rows = [
        {"file": f"images/a/{i}.png", "split": "train" if i < 10 else "test", "pixels": each}
        for i, each in enumerate(ordered)
    ]
    config = MembershipConfig(write(tmp_path, rows), str(mute_folder), n=8)
    figures = measure(config)
    assert figures["overall"]["auroc"]["value"] > 0.9
    assert figures["overall"]["num_each"] == 8
    assert figures["sources"] == {"images/a": figures["overall"]}


def test_a_loss_is_of_the_image_under_its_own_prompt(tiny_folder: Path) -> None:
    pipeline = TextToCXRPipeline.from_pretrained(tiny_folder)
    images = torch.from_numpy(np.stack([picture(seed, SIDE) for seed in (0, 0, 1)]))[:, None]
    prompts = ["no acute finding", "pneumonia", "no acute finding"]

    def losses(rows: list[int]) -> Tensor:
        chosen = [prompts[row] for row in rows]
        return run(losses_of(pipeline, images[rows], chosen, [5] * len(rows)), pipeline.networks)

    together = losses([0, 1, 2])
    assert len(set(together.tolist())) == 3
    assert torch.allclose(together, torch.cat([losses([0]), losses([1, 2])]), atol=1e-5)


def test_a_mute_models_loss_is_the_power_of_scaled_latents(mute_folder: Path) -> None:
    pipeline = TextToCXRPipeline.from_pretrained(mute_folder)
    images = torch.from_numpy(np.stack([picture(seed, SIDE) for seed in range(3)]))[:, None]
    unit = (images.float() / 127.5 - 1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        latents = pipeline.vae.encode(unit).latent_dist.mean * pipeline.vae.config.scaling_factor
    found = run(losses_of(pipeline, images, ["a"] * 3, range(3)), pipeline.networks)
    assert torch.allclose(found, latents.square().flatten(1).mean(1), rtol=1e-4)


def test_sources_have_one_proportion_in_both_sets(mute_folder: Path, tmp_path: Path) -> None:
    # easy pictures are mostly in train, hard ones mostly held out: unmatched, that is AUROC 0.7
    easy, hard = picture(0), picture(1)
    counts = {("easy", "train"): 9, ("hard", "train"): 4, ("easy", "test"): 4, ("hard", "test"): 9}
    rows = [
        {"file": f"{split}/{source}/x/{i}.png", "split": split, "pixels": pixels}
        for (source, split), count in counts.items()
        for pixels in [easy if source == "easy" else hard]
        for i in range(count)
    ]
    config = MembershipConfig(write(tmp_path, rows), str(mute_folder), n=8)
    figures = measure(config)
    # the folder that is named after the split is no source
    assert set(figures["sources"]) == {"easy/x", "hard/x"}
    assert figures["sources"]["easy/x"]["num_each"] == figures["sources"]["hard/x"]["num_each"] == 4
    # of four pairs each, one source alone says nothing
    assert [each["auroc"] for each in figures["sources"].values()] == [None, None]
    assert figures["overall"]["auroc"]["value"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InvalidInput, match=r"n is 9, but there are only 8 pairs.*5 image\(s\) are"):
        measure(replace(config, n=9))


def test_pairs_share_a_source_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    rows = [
        {"file": f"images/{source}/{split}{i}.png", "split": split, "pixels": picture(i, side)}
        for source, side in (("a", 128), ("b", 160), ("small", 64))
        for split in ("train", "test")
        for i in range(3)
    ]
    rows.append({"file": "images/c/0.png", "split": "test", "pixels": picture(0)})
    rows[0]["prompt"] = ""
    folder = write(tmp_path, rows)
    (folder / "images/b/train0.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    train, test = (read_collection(folder, split).items for split in ("train", "test"))
    pictures = Pictures(SIDE)
    for seed in range(5):
        pairs = draw_pairs(train, test, 4, pictures, np.random.default_rng(seed), ignore)
        assert all(source_of(own.item) == source_of(other.item) for own, other in pairs)
        assert all(own.item.split == "train" for own, _ in pairs)
        names = [each.item.name for pair in pairs for each in pair]
        assert len(set(names)) == 8
        assert not any("small" in name or "/c/" in name for name in names)
    said = " ".join(pictures.lines())
    for reason in ("below 128 pixels", "have no prompt", "cannot be read", "no train image left"):
        assert reason in said


def invoke(*options: Any) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["evaluate", "membership", *map(str, options)])


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Eight pictures of either split, all of one source."""
    rows = [
        {"file": f"{i}.png", "split": split, "pixels": picture(i)}
        for i, split in enumerate(["train", "test"] * 8)
    ]
    (tmp_path / "halves").mkdir()
    return write(tmp_path / "halves", rows)


def test_the_command_prints_one_record_and_writes_it(
    tiny_folder: Path, halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.json"
    result = invoke("--data", halves, "--model", tiny_folder, "--out", out, "--n", 8)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(out.read_text())
    assert "reading images: 8 of 8" in result.stderr
    assert "measuring losses: 16 of 16" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--held-out-split", "val"), "split is 'val', but"),
        (("--held-out-split", "train"), "both 'train'"),
        (("--model", "cxr-encoder-mini"), "which has no vae, text_encoder"),
        (("--out", "/nowhere/f.json"), "/nowhere does not exist"),
    ],
)
def test_what_is_missing_is_named(
    tiny_folder: Path, halves: Path, options: tuple[str, ...], message: str
) -> None:
    result = invoke("--data", halves, "--model", tiny_folder, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_model_without_a_noise_schedule_has_no_loss(
    tiny_parts: dict[str, Any], radiographs: Path, tmp_path: Path
) -> None:
    parts = {**tiny_parts, "scheduler": FlowMatchEulerDiscreteScheduler()}
    pipeline = TextToCXRPipeline(**parts)
    images = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    with pytest.raises(InvalidInput, match="must have alphas_cumprod"):
        run(losses_of(pipeline, images, ["a"], [0]), pipeline.networks)
    # a folder without prompts
    train, val = (read_collection(radiographs, split).items for split in ("train", "val"))
    with pytest.raises(InvalidInput, match=r"only 0 pairs.*have no prompt"):
        draw_pairs(train, val, 1, Pictures(SIDE), np.random.default_rng(0), ignore)
