"""Hugging Face ImageFolder: `load_dataset("imagefolder", data_dir=...)`.

Masks lie in a folder of their own and are columns of images, by their `mask_file_name`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from gen.data.manifest import METADATA
from gen.data.samples import MASK, TRAIN, Sample
from jobs.exports.rows import row_of


def write_imagefolder(samples: Iterable[Sample], out: Path) -> None:
    """train/images/KEY.png, train/masks/KEY.png and train/metadata.jsonl."""
    folder = out / TRAIN
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with (folder / METADATA).open("w", encoding="utf-8") as table:
        for sample in samples:
            image = f"images/{sample.key}.{sample.picture}"
            (folder / image).write_bytes(sample.files[sample.picture])
            row = {"file_name": image, **row_of(sample)}
            if MASK in sample.files:
                row["mask_file_name"] = f"masks/{sample.key}.png"
                (folder / row["mask_file_name"]).write_bytes(sample.files[MASK])
            table.write(json.dumps(row) + "\n")
    if not any((folder / "masks").iterdir()):
        (folder / "masks").rmdir()
