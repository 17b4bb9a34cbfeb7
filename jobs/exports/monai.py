"""A MONAI datalist: `monai.data.load_decathlon_datalist("datalist.json", data_list_key=...)`."""

import json
from collections.abc import Iterable
from pathlib import Path

from gen.data.samples import MASK, Sample
from jobs.exports.rows import row_of

DATALIST = "datalist.json"
FOLDS = 5


def write_monai(samples: Iterable[Sample], out: Path) -> None:
    """images/, masks/ and datalist.json, all of it under "training".

    `label` is the mask, or the labels of an image without one. Folds are drawn from the source,
    so that all that was made from an image is in one of them.
    """
    for name in ("images", "masks"):
        (out / name).mkdir()
    training = []
    for sample in samples:
        image = f"images/{sample.key}.{sample.picture}"
        (out / image).write_bytes(sample.files[sample.picture])
        row = row_of(sample)
        entry = {"image": image, "label": row["labels"], "fold": _fold(row), **row}
        if MASK in sample.files:
            entry["label"] = f"masks/{sample.key}.png"
            (out / entry["label"]).write_bytes(sample.files[MASK])
        training.append(entry)
    whole = {"description": "Synthetic images, for training only", "training": training}
    (out / DATALIST).write_text(json.dumps(whole, indent=1) + "\n")


def _fold(row: dict[str, object]) -> int:
    from zlib import crc32

    return crc32(str(row["source"] or row["id"]).encode()) % FOLDS
