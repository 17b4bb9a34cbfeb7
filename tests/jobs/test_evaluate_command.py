"""`medphantom evaluate prompts`, and what each part says of wrong input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

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


def evaluate(*arguments: Any) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


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


def test_what_is_missing_is_named(real: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    for arguments, message in (
        (["prompts", "--data", tmp_path, "--out", out], "has no manifest.csv"),
        (["prompts", "--data", real, "--split", "none", "--out", out], "no row of split 'none'"),
        (["fidelity", real, "--data", real, "--split", "none"], "split is 'none'"),
        (["fidelity", real, "--data", real, "--encoder", "nobody"], "nobody"),
    ):
        result = evaluate(*arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
        assert "Traceback" not in result.output
    assert not out.exists()
