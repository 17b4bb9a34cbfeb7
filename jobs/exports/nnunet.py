"""nnU-Net's raw data set: imagesTr, labelsTr and dataset.json, with PNG files."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from gen.data.samples import Sample
from jobs.exports.masks import mask_of, numbers_of, shown_by

DATASET = "Dataset900_Synthetic"  # nnU-Net reads the number; low ones are the Decathlon's


def write_nnunet(read: Callable[[], Iterable[Sample]], out: Path) -> None:
    """Samples with a mask; each label is a number, and what was healed is background."""
    numbers = numbers_of(read())
    root = out / DATASET
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    count = 0
    for sample in read():
        mask = mask_of(sample)
        if mask is None:
            continue
        image = Image.open(io.BytesIO(sample.files["png"]), formats=["PNG"])
        image.save(root / "imagesTr" / f"{sample.key}_0000.png")
        label = Image.fromarray(np.where(mask, numbers[shown_by(sample)], 0).astype(np.uint8))
        label.save(root / "labelsTr" / f"{sample.key}.png")
        count += 1
    said = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, **numbers},
        "numTraining": count,
        "file_ending": ".png",
        "description": "Synthetic images, for training only",
    }
    (root / "dataset.json").write_text(json.dumps(said, indent=1) + "\n")
