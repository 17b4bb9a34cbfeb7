"""The card that a model leaves training with: what is known of it before anybody has judged it."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gen.store.card import Card, TrainingData, write_card
from gen.store.catalogue import resolve
from gen.training.loop import LoopConfig

UNKNOWN = "not stated"
LIMITS = (
    "Nobody has evaluated this model: see medphantom audit and medphantom evaluate.",
    "Not for diagnosis.",
)
UNKNOWN_BASE = "It went on from a model without a card: what that was trained on is not known."


def write_first_card(
    folder: Path,
    config: LoopConfig,
    image_size: int,
    training_data: Sequence[TrainingData],
    base_model: str | Path | None = None,
    limits: Sequence[str] = (),
    **fields: Any,
) -> Card:
    """Write the card of a model that was saved in `folder`, of chest X-rays unless `fields` differ.

    Args:
        folder: in diffusers layout.
        config: of the recipe; the folder of its output names the model.
        image_size: side of the images in pixels.
        training_data: what it was trained on, beside what its base was.
        base_model: what it went on from, whose training data are its own, too.
        limits: what a user must know beside that nobody has evaluated it.
        fields: others of `Card`.
    """
    base = None if base_model is None else resolve(base_model).card
    earlier = () if base is None else base.training_data
    unknown = base_model is not None and base is None
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", config.output.resolve().name).lstrip("._-")
    known = {
        "id": name or "model",
        "task": "text-to-image",
        "modality": "DX",
        "image_size": image_size,
        "pixel_range": (-1.0, 1.0),
        "channels": json.loads((folder / "vae" / "config.json").read_text())["out_channels"],
        "licence": "of its training data, below",
        "training_data": tuple(dict.fromkeys((*training_data, *earlier))),
        "recipe": json.dumps(_settings(config), sort_keys=True),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "images_seen": config.num_steps * config.batch_size + (base.images_seen if base else 0),
        "evaluation": {},
        "limits": (*limits, *LIMITS, *([UNKNOWN_BASE] if unknown else [])),
    }
    return write_card(folder, **known | fields)


def training_data(fields: Sequence[Mapping[str, str]], name: str) -> tuple[TrainingData, ...]:
    """The data sets of rows of a manifest, which `name` stands for where they name none.

    Of a file, which may be cut into many pictures, one row counts.
    """
    files = {row["file"]: row for row in fields}
    counts = Counter(
        (row.get("original_dataset") or name, row.get("licence") or UNKNOWN)
        for row in files.values()
    )
    return tuple(
        TrainingData(name=source, licence=licence, images=count)
        for (source, licence), count in counts.most_common()
    )


def _settings(config: LoopConfig) -> dict[str, Any]:
    """Without the folders of data and output, which say more of a machine than of a model."""
    return config.model_dump(mode="json", exclude={"data", "output"})
