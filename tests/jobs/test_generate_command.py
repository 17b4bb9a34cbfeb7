"""`medphantom generate` with a tiny model: files, records, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from gen.data.manifest import read_metadata
from gen.data.provenance import Record
from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder
from jobs.cli import app
from jobs.generate import GenerateConfig, items_of, read_prompts, run_generate
from pipelines.text_to_cxr import TextToCXRPipeline

PROMPT = "chest x-ray of a child with pneumonia"


@pytest.fixture
def model(tiny_parts: dict[str, Any], tmp_path: Path) -> Path:
    """A tiny grey model whose images are 32 px and not flat."""
    torch.manual_seed(1)
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, context_channels=8, refine_channels=8, shuffle=2,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.fit(torch.rand(8, 1, 32, 32) * 2 - 1)
    TextToCXRPipeline(**{**tiny_parts, "vae": vae}).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def generate(model: Path, out: Path, *arguments: str) -> Result:
    """Run the command with few steps."""
    options = ["--model", str(model), "--steps", "2", "--out", str(out)]
    return CliRunner().invoke(app, ["generate", *arguments, *options])


def records_of(result: Result) -> list[dict[str, Any]]:
    """The JSON lines on stdout."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_sentence_gives_pictures_records_and_a_contact_sheet(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records = records_of(generate(model, out, PROMPT, "-n", "3", "--seed", "5"))
    assert [record["seed"] for record in records] == [5, 6, 7]
    assert {record["prompt"] for record in records} == {PROMPT}
    assert sorted(read_metadata(out)) == ["000000.png", "000001.png", "000002.png"]
    pictures = [np.asarray(Image.open(record["file"])) for record in records]
    assert all(picture.shape == (32, 32) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.asarray(Image.open(out / "grid.png")).shape == (64, 64)


@pytest.mark.parametrize("scheduler", ["dpm++", "euler-a"])
def test_a_record_makes_the_same_pixels_again(model: Path, tmp_path: Path, scheduler: str) -> None:
    options = ["-n", "3", "--seed", "8", "--scheduler", scheduler]
    first = records_of(generate(model, tmp_path / "a", PROMPT, *options))[1]
    again = records_of(generate(model, tmp_path / "b", "--from-record", first["file"]))[0]
    pixels = [np.asarray(Image.open(each["file"])) for each in (first, again)]
    assert np.array_equal(*pixels)
    assert Record.from_file(first["file"]) == Record.from_file(again["file"])


def test_bf16_differs_a_little_and_is_recorded(model: Path, tmp_path: Path) -> None:
    options = [PROMPT, "-n", "1", "--seed", "8"]
    full = records_of(generate(model, tmp_path / "a", *options))[0]
    half = records_of(generate(model, tmp_path / "b", *options, "--mixed-precision", "bf16"))[0]
    again = records_of(generate(model, tmp_path / "c", "--from-record", half["file"]))[0]
    assert half["settings"]["mixed_precision"] == "bf16"
    pixels = [np.asarray(Image.open(each["file"]), np.float64) for each in (full, half, again)]
    assert 0 < np.abs(pixels[0] - pixels[1]).mean() < 8
    assert np.array_equal(pixels[1], pixels[2])


def test_a_record_of_other_weights_is_refused(model: Path, tmp_path: Path) -> None:
    made = records_of(generate(model, tmp_path / "a", PROMPT, "-n", "1"))[0]
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    result = generate(model, tmp_path / "b", "--from-record", made["file"])
    assert result.exit_code == 2
    assert "was made by other weights" in result.output


def test_dicom_objects_carry_the_record_and_say_they_are_synthetic(
    model: Path, tmp_path: Path
) -> None:
    made = records_of(generate(model, tmp_path / "a", PROMPT, "-n", "1", "--format", "dicom"))[0]
    data = pydicom.dcmread(made["file"])
    assert data[0x0008, 0x001C].value == "YES"
    assert Record.from_file(made["file"]).seed == made["seed"]


def test_npy_files_hold_the_pixels_as_floats(model: Path, tmp_path: Path) -> None:
    made = records_of(generate(model, tmp_path / "a", PROMPT, "-n", "1", "--format", "npy"))[0]
    pixels = np.load(made["file"])
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_a_csv_gives_each_row_its_number_and_seed(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("prompt,n,seed\nnormal chest,2,10\npneumonia,,\n", encoding="utf-8-sig")
    options = ["--prompts", str(table), "-n", "1", "--seed", "50"]
    records = records_of(generate(model, tmp_path / "a", *options))
    pairs = [(record["prompt"], record["seed"]) for record in records]
    assert pairs == [("normal chest", 10), ("normal chest", 11), ("pneumonia", 52)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nx\n", "add one named 'prompt'"),
        ("prompt,n\nx,many\n", "line 2: n is 'many'"),
        ("prompt,n\nx,0\n", "n is 0"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_prompts(tmp_path / "p.csv", 1, 0)


def test_nothing_is_overwritten(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records_of(generate(model, out, PROMPT, "-n", "1"))
    before = sorted((path.name, path.read_bytes()) for path in out.iterdir())
    result = generate(model, out, PROMPT, "-n", "1")
    assert result.exit_code == 2
    assert "nothing is overwritten" in result.output
    assert before == sorted((path.name, path.read_bytes()) for path in out.iterdir())


def test_an_interrupt_leaves_whole_files_and_their_records(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = GenerateConfig(
        tuple(items_of(PROMPT, 6, 0)), out, str(model), num_inference_steps=2, batch_size=2
    )
    made: list[dict[str, Any]] = []

    def interrupt(record: dict[str, Any]) -> None:
        made.append(record)
        if len(made) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_generate(config, interrupt)
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == ["000000.png", "000001.png", "000002.png"]
    assert sorted(read_metadata(out)) == names
    assert all(Record.from_file(out / name).seed == i for i, name in enumerate(names))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give exactly one of PROMPT"),
        ([PROMPT, "--scheduler", "fast"], "scheduler is 'fast'"),
        ([PROMPT, "--height", "33"], "height is 33"),
        ([PROMPT, "--steps", "5000"], "num_inference_steps is 5000"),
    ],
)
def test_a_wrong_option_is_named(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(
        app, ["generate", "--model", str(model), "--out", str(tmp_path / "o"), *arguments]
    )
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
