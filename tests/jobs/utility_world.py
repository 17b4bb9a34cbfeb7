"""A collection of textures that a classifier needs many of to tell, and synthetic sets of them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.samples import Sample, write_tar

SIDE = 16
ILL = "Effusion"


def texture(ill: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(16, 16), noise, and if ill faint stripes; brightness and contrast say nothing."""
    wave = np.sin(np.arange(SIDE) * 1.6 + rng.uniform(0, 6.3))
    pixels = rng.normal(0, 1, (SIDE, SIDE)) + 0.9 * ill * wave
    bright = 128 + rng.normal(0, 25) + pixels * 25 * rng.uniform(0.6, 1.4)
    return bright.clip(0, 255).astype(np.uint8)


def write_real(folder: Path, num_train: int = 12, num_test: int = 80) -> Path:
    """Two images of each patient, half of the patients ill, with splits, sexes and ages."""
    rng = np.random.default_rng(0)
    columns = ("file", "split", "findings", "patient_id", "sex", "age", "view")
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for split, count in (("train", num_train), ("val", 40), ("test", num_test)):
            for i in range(count):
                patient, ill = i // 2, i // 2 % 2 == 1
                name = f"{split}-{i}.png"
                Image.fromarray(texture(ill, rng)).save(folder / name)
                row = {
                    "file": name, "split": split, "findings": ILL if ill else "No Finding",
                    "patient_id": f"{split}-{patient}", "sex": "MF"[patient // 2 % 2],
                    "age": (30, 70)[patient // 4 % 2], "view": "PA",
                }  # fmt: skip
                writer.writerow(row)
    return folder


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """The file of a picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def sample(key: str, pixels: NDArray[np.uint8], ill: bool, **meta: Any) -> Sample:
    """One result of a data set job."""
    row = {
        "id": key, "synthetic": True, "split": "train", "prompt": None, "seed": 0,
        "labels": [ILL if ill else "Normal"],
        "group": {"sex": "female", "age_group": "adult", "view": "PA"},
    }  # fmt: skip
    return Sample(key, {"png": as_png(pixels)}, row | meta)


def write_shards(folder: Path, count: int = 400, wrong: bool = False) -> Path:
    """A shard folder of the same textures; `wrong`: each is labelled as what it is not."""
    rng = np.random.default_rng(1)
    (folder / "shards").mkdir(parents=True)
    samples = [
        sample(f"s{i:05d}", texture(i % 2 == 1, rng), (i % 2 == 1) != wrong) for i in range(count)
    ]
    for number, part in enumerate((samples[: count // 2], samples[count // 2 :])):
        with (folder / "shards" / f"shard-{number:06d}.tar").open("wb") as stream:
            write_tar(stream, part)
    return folder


def write_image_folder(folder: Path, split: str | None = "train") -> Path:
    """A Hugging Face ImageFolder of two prompted pictures."""
    rng = np.random.default_rng(2)
    folder.mkdir()
    lines = []
    for i, prompt in enumerate(("PA chest X-ray of a man: effusion.", "chest X-ray of a child")):
        Image.fromarray(texture(i == 0, rng)).save(folder / f"{i}.png")
        lines.append({"file_name": f"{i}.png", "prompt": prompt, "split": split})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder
