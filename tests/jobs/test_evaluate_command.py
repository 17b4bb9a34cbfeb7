"""`medphantom evaluate` on tiny real and generated folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from gen.data.images import write_png
from gen.data.manifest import append_metadata
from gen.data.provenance import Record
from gen.models.cxr_encoder import CXREncoder
from jobs.cli import app
from jobs.generate import read_prompts

HEADER = "file,split,findings,view,age,sex,patient_id,width,height,prompt"
KINDS = {
    "child": ("images/kermany", "normal", "normal chest x-ray of a child"),
    "sick": ("images/kermany", "pneumonia|viral", "chest x-ray of a child with pneumonia"),
    "adult": ("images/nih", "No Finding", "normal chest x-ray of a man"),
}


def picture(kind: str, seed: int) -> np.ndarray:
    """A picture (128, 128) in [0, 1] whose bright corner tells its kind."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, 0.4, (128, 128))
    top = 64 * (list(KINDS).index(kind) % 2)
    left = 64 * (list(KINDS).index(kind) // 2)
    pixels[top : top + 64, left : left + 64] += 0.5
    return pixels


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight real pictures of each kind in train and in test."""
    folder = tmp_path_factory.mktemp("real")
    lines = [HEADER]
    for number, (split, kind, i) in enumerate(
        (split, kind, i) for split in ("train", "test") for kind in KINDS for i in range(8)
    ):
        source, findings, prompt = KINDS[kind]
        name = f"{source}/{split}{kind}{i}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(picture(kind, number) * 255)).save(folder / name)
        lines.append(f"{name},{split},{findings},,,,{number},128,128,{prompt}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of each kind, with records."""
    folder = tmp_path_factory.mktemp("generated")
    for i, kind in enumerate(kind for kind in KINDS for _ in range(6)):
        record = Record(
            model="m", weight_sha256="0" * 64, prompt=KINDS[kind][2], seed=i, scheduler="ddim",
            num_inference_steps=1, guidance_scale=1.0, height=128, width=128,
        )  # fmt: skip
        write_png(folder / f"{i}.png", picture(kind, 1000 + i), record)
        append_metadata(folder, [record.to_row(f"{i}.png")])
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(folder)
    return folder


def evaluate(*arguments: Any) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_fidelity_gives_distance_floor_and_spectrum(
    real: Path, generated: Path, encoder: Path, tmp_path: Path
) -> None:
    options = ["--data", real, "--encoder", encoder, "--size", 96, "--out", tmp_path / "f.json"]
    result = evaluate("fidelity", generated, *options, "--population", "children")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures == json.loads((tmp_path / "f.json").read_text())
    assert (figures["num_generated"], figures["num_real"]) == (12, 16)
    assert figures["frechet"]["size"] == 6
    floor, distance = figures["frechet"]["floor"]["value"], figures["frechet"]["distance"]["value"]
    assert figures["frechet"]["ratio"] == pytest.approx(distance / floor)
    assert figures["spectrum_ratio"] == pytest.approx([1] * 16, rel=0.5)


def test_alignment_says_whether_prompts_were_followed(
    real: Path, generated: Path, encoder: Path
) -> None:
    result = evaluate("alignment", generated, "--data", real, "--encoder", encoder, "--size", 96)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    for question in ("pneumonia_vs_normal_children", "adult_vs_child"):
        assert figures[question]["generated"]["value"] > 0.95
        assert figures[question]["real"]["value"] > 0.95
    assert figures["pneumonia_vs_normal_children"]["num_generated"] == 12


def test_alignment_leaves_out_what_the_prompts_did_not_ask(
    real: Path, generated: Path, encoder: Path, tmp_path: Path
) -> None:
    rows = (generated / "metadata.jsonl").read_text().splitlines()[:12]  # both kinds of children
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes((generated / f"{i}.png").read_bytes())
    result = evaluate("alignment", tmp_path, "--data", real, "--encoder", encoder, "--size", 96)
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["adult_vs_child"]["generated"] is None
    assert figures["pneumonia_vs_normal_children"]["generated"]["value"] > 0.95


@pytest.mark.parametrize("words", [[], ["--paraphrase"]])
def test_prompts_are_written_for_generate(real: Path, tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "p.csv"
    result = evaluate("prompts", "--data", real, "--out", out, "--population", "children", *words)
    assert result.exit_code == 0, result.output
    prompts = [item.prompt for item in read_prompts(out, 1, 0)]
    assert len(prompts) == 16
    known = {prompt for _, _, prompt in KINDS.values()}
    assert set(prompts) <= known if not words else not set(prompts) & known
    again = evaluate("prompts", "--data", real, "--out", out)
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "none"], "split is 'none'"),
        (["--population", "children", "--encoder", "nobody"], "nobody"),
    ],
)
def test_what_is_missing_is_named(
    real: Path, generated: Path, arguments: list[str], message: str
) -> None:
    result = evaluate("fidelity", generated, "--data", real, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_too_small_a_size_is_refused_rather_than_measured_as_nothing(
    real: Path, generated: Path, encoder: Path
) -> None:
    options = ["--data", real, "--encoder", encoder, "--size", 64]
    result = evaluate("fidelity", generated, *options)
    assert result.exit_code == 2
    assert "more than 64 pixels" in result.stderr
    assert result.stdout == ""


def test_a_folder_without_a_manifest_or_records_is_named(
    real: Path, generated: Path, tmp_path: Path
) -> None:
    for arguments, missing in (
        (["prompts", "--data", tmp_path, "--out", tmp_path / "p.csv"], "manifest.csv"),
        (["alignment", tmp_path, "--data", real], "metadata.jsonl"),
    ):
        result = evaluate(*arguments)
        assert result.exit_code == 2
        assert missing in result.stderr
        assert "Traceback" not in result.output
