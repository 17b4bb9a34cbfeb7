"""What a small world is made of: pictures of four kinds, with prompts, and the command on them."""

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from gen.data.images import write_png
from gen.data.manifest import append_metadata
from gen.data.provenance import Record
from jobs.cli import app

SIDE = 192
FIELDS = ("file", "split", "findings", "view", "age", "sex", "patient_id", "width", "height")
KINDS = (
    ("images/kermany", "normal", "AP", "", "AP chest x-ray of a child, no finding"),
    ("images/kermany", "pneumonia|viral", "AP", "", "AP chest x-ray of a child, viral pneumonia"),
    ("images/nih", "No Finding", "PA", "M", "normal PA chest x-ray of a man"),
    ("images/nih", "Effusion", "AP", "F", "AP chest x-ray of a woman with effusion"),
)


def picture(kind: int, seed: int) -> np.ndarray:
    """A picture (SIDE, SIDE) in [0, 1]: structure of its own, and a bright corner for its kind."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4)
    pixels = 0.35 + 0.12 * texture / texture.std() + 0.01 * rng.normal(size=(SIDE, SIDE))
    half = SIDE // 2
    top, left = half * (kind % 2), half * (kind // 2)
    pixels[top : top + half, left : left + half] += 0.3
    return pixels.clip(0, 1)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(np.round(pixels * 255))).save(path)


def make_set(folder: Path, count: int, first_seed: int) -> Path:
    """`count` made images with their records, all kinds in turn."""
    folder.mkdir()
    for i in range(count):
        kind = i % len(KINDS)
        record = Record(
            model="m", weight_sha256="0" * 64, prompt=KINDS[kind][4], seed=i, scheduler="ddim",
            num_inference_steps=1, guidance_scale=1.0, height=SIDE, width=SIDE,
        )  # fmt: skip
        write_png(folder / f"{i:03d}.png", picture(kind, first_seed + i), record)
        append_metadata(folder, [record.to_row(f"{i:03d}.png")])
    return folder


def run(world: Path, *arguments: Any, depth: int = 1) -> Result:
    """Run a command, `depth` words long, with the world's encoder and cache before its options."""
    first, rest = arguments[:depth], arguments[depth:]
    options = ["--encoder", world / "encoder", "--cache", world / "cache"]
    return CliRunner().invoke(app, [str(each) for each in (*first, *options, *rest)])


def audit(world: Path, synthetic: Path, out: Path, *options: Any) -> Result:
    """Audit against the world's real images, quickly unless options say otherwise."""
    real = () if "--real" in options else ("--real", world / "real")
    quick = ("--classifier", world / "classifier", "--planted", 4)
    return run(world, "audit", *quick, synthetic, "--out", out, *real, *options)
