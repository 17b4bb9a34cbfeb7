"""COCO instances: a box and a run-length mask for each connected part of a label."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label

from gen.data.samples import Sample
from jobs.exports.masks import mask_of, numbers_of, shown_by
from jobs.exports.rows import row_of

INSTANCES = "annotations/instances_train.json"


def write_coco(read: Callable[[], Iterable[Sample]], out: Path) -> None:
    """images/ and annotations/instances_train.json; what has no mask is an image of nothing."""
    numbers = numbers_of(read())
    for name in ("images", "annotations"):
        (out / name).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, sample in enumerate(read(), 1):
        name = f"{sample.key}.{sample.picture}"
        (out / "images" / name).write_bytes(sample.files[sample.picture])
        width, height = Image.open(io.BytesIO(sample.files[sample.picture])).size
        images.append(
            {"file_name": name, "height": height, "width": width, **row_of(sample), "id": index}
        )
        mask = mask_of(sample)
        for part in () if mask is None else _instances(mask):
            named = {"image_id": index, "category_id": numbers[shown_by(sample)]}
            annotations.append({"id": len(annotations) + 1, **named, **part})
    whole = {
        "info": {"description": "Synthetic images, for training only"},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": annotations,
    }
    (out / INSTANCES).write_text(json.dumps(whole) + "\n")


def _instances(mask: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    parts, count = label(mask)
    for number in range(1, count + 1):
        part = parts == number
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        top, left = int(rows[0]), int(columns[0])
        yield {
            "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
            "area": int(part.sum()),
            "iscrowd": 0,
            "segmentation": {"size": list(part.shape), "counts": run_lengths(part)},
        }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of False, True, False, ... down the columns, as COCO counts."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], ends, [mask.size]]))
    # the last run is empty where the mask ends with a pixel of the label
    return [int(each) for each in (lengths[:-1] if lengths[-1] == 0 else lengths)]
