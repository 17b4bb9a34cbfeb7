"""What a tiny model's loss and images say of its training folder, where the answer is known."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from gen.data.collection import Item, read_collection
from gen.denoising import make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.metrics.aligned import pair_similarity
from gen.models.cxr_encoder import CXREncoder
from gen.training.text_to_image import encode_images
from jobs.cli import Commands
from jobs.model_privacy import (
    Drawn,
    MembershipConfig,
    Pictures,
    ReidentificationConfig,
    Target,
    compare,
    draw_pairs,
    draw_targets,
    losses_of,
    made_images,
    measure_membership,
    measure_reidentification,
    membership,
    reidentification,
    source_of,
)
from pipelines.text_to_cxr import TextToCXRPipeline

SIDE = 16  # of the tiny model's images
app = typer.Typer(cls=Commands)
app.command()(membership)
app.command()(reidentification)


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


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


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
    seen: list[tuple[str, int, int]] = []
    figures = measure_membership(config, lambda *progress: seen.append(progress))
    assert figures["overall"]["auroc"]["value"] > 0.9
    assert figures["overall"]["num_each"] == 8
    assert figures["sources"] == {"images/a": figures["overall"]}
    assert seen[-1] == ("measuring losses", 16, 16)


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
    figures = measure_membership(config)
    # the folder that is named after the split is no source
    assert set(figures["sources"]) == {"easy/x", "hard/x"}
    assert figures["sources"]["easy/x"]["num_each"] == figures["sources"]["hard/x"]["num_each"] == 4
    # of four pairs each, one source alone says nothing
    assert [each["auroc"] for each in figures["sources"].values()] == [None, None]
    assert figures["overall"]["auroc"]["value"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InvalidInput, match=r"n is 9, but there are only 8 pairs.*5 image\(s\) are"):
        measure_membership(replace(config, n=9))


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
        pairs = draw_pairs(train, test, 4, pictures, np.random.default_rng(seed))
        assert all(source_of(own.item) == source_of(other.item) for own, other in pairs)
        assert all(own.item.split == "train" for own, _ in pairs)
        names = [each.item.name for pair in pairs for each in pair]
        assert len(set(names)) == 8
        assert not any("small" in name or "/c/" in name for name in names)
    said = " ".join(pictures.lines())
    for reason in ("below 128 pixels", "have no prompt", "cannot be read", "no train image left"):
        assert reason in said


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
    risks = compare(targets, remembered, pair_similarity, features)
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
    risks = compare(targets, grey, pair_similarity, features)
    assert max(each.mean_pixel_distance for each in risks["gap"]) < 0
    mean = np.mean([each.mean_pixel_distance for each in risks["gap_to_stranger"]])
    assert abs(mean) < 0.02
    assert max(each.max_score for each in risks["gap_to_stranger"]) == pytest.approx(0, abs=0.1)


KINDS = (
    ("pneumonia", "Pneumonia", "chest X-ray of a man. Findings: pneumonia."),
    ("pneumonia", "Pneumonia", "chest X-ray of a woman. Findings: pneumonia."),
    ("normal", "No Finding", "chest X-ray of a man. Findings: no acute finding."),
    ("normal", "No Finding", "chest X-ray of a woman. Findings: no acute finding."),
)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Of each kind four patients with two images each."""
    rows = [
        {
            "file": f"images/nih/{kind}{patient}-{i}.png",
            "split": "train",
            "findings": findings,
            "prompt": prompt,
            "patient_id": f"{kind}{patient}",
            "pixels": picture(100 * kind + 10 * patient + i),
        }
        for kind, (_, findings, prompt) in enumerate(KINDS)
        for patient in range(4)
        for i in range(2)
    ]
    (tmp_path / "patients").mkdir()
    return write(tmp_path / "patients", rows)


def test_other_patients_are_of_the_same_prompt_and_then_of_the_same_findings(
    patients: Path,
) -> None:
    config = ReidentificationConfig(patients, num_prompts=4, seeds_per_prompt=5)
    targets = draw_targets(read_collection(patients, "train").items, config, Pictures(SIDE))
    assert {target.own.item.prompt for target in targets} == {prompt for _, _, prompt in KINDS}
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
    figures = measure_reidentification(config)
    assert figures["share_of_others_with_same_prompt"] == 1
    assert figures["reidentifier"] == encoder
    for each in figures["figures"].values():
        gap = each["made"]["value"] - each["other_patients"]["value"]
        assert each["gap"]["value"] == pytest.approx(gap)
        assert each["gap"]["low"] <= each["gap"]["value"] <= each["gap"]["high"]


def invoke(*arguments: Any) -> Any:
    """Run a command."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_commands_print_one_record_and_write_it(
    tiny_folder: Path, patients: Path, encoder: str, tmp_path: Path
) -> None:
    lines = (patients / "manifest.csv").read_text().splitlines()
    halves = [line.replace(",train,", ",test,") if i % 2 else line for i, line in enumerate(lines)]
    (patients / "manifest.csv").write_text("\n".join(halves) + "\n")
    common = ("--data", patients, "--model", tiny_folder, "--out", tmp_path / "f.json")
    few = ("--num-prompts", 4, "--seeds-per-prompt", 1, "--num-inference-steps", 1)
    for arguments in (
        ("membership", *common, "--n", 8),
        ("reidentification", *common, *few, "--encoder", encoder),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == json.loads((tmp_path / "f.json").read_text())
        assert "reading images" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("membership",), "split is 'test', but"),
        (("membership", "--held-out-split", "train"), "both 'train'"),
        (("membership", "--model", "cxr-encoder-mini"), "which has no vae, text_encoder"),
        (("membership", "--out", "/nowhere/f.json"), "/nowhere does not exist"),
        (("reidentification", "--split", "none"), "split is 'none'"),
        (("reidentification", "--num-prompts", "5"), "num_prompts is 5, but"),
        (("reidentification", "--num-prompts", "4", "--seeds-per-prompt", "16"), "only 15 other"),
        (("reidentification", "--reidentifier", "cxr-mini"), "neither the safetensors"),
        (("reidentification", "--model", "cxr-encoder-mini"), "which has no vae, text_encoder"),
    ],
)
def test_what_is_missing_is_named(
    tiny_folder: Path, patients: Path, arguments: tuple[str, ...], message: str
) -> None:
    command, *options = arguments
    model = () if "--model" in options else ("--model", tiny_folder)
    result = invoke(command, "--data", patients, *model, *options)
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
        draw_pairs(train, val, 1, Pictures(SIDE), np.random.default_rng(0))
