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
from gen.training.dataset import ChestXrays
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
    data: ChestXrays,
    base_model: str | None = None,
    limits: Sequence[str] = (),
) -> Card:
    """Write the card of a text-to-image model that was saved in `folder`.

    Args:
        folder: in diffusers layout.
        config: of the recipe; the folder of its output names the model.
        data: what it was trained on.
        base_model: what it went on from, whose training data are its own, too.
        limits: what a user must know beside that nobody has evaluated it.
    """
    own = training_data(data.fields, config.data.name)
    base = None if base_model is None else resolve(base_model).card
    earlier = () if base is None else base.training_data
    unknown = base_model is not None and base is None
    return write_card(
        folder,
        id=re.sub(r"[^A-Za-z0-9._-]+", "-", config.output.resolve().name).lstrip("._-") or "model",
        task="text-to-image",
        modality="DX",
        image_size=data.images.shape[-1],
        pixel_range=(-1.0, 1.0),
        channels=json.loads((folder / "vae" / "config.json").read_text())["out_channels"],
        licence="of its training data, below",
        training_data=tuple(dict.fromkeys((*own, *earlier))),
        recipe=json.dumps(_settings(config), sort_keys=True),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        images_seen=config.num_steps * config.batch_size,
        evaluation={},
        limits=(*limits, *LIMITS, *([UNKNOWN_BASE] if unknown else [])),
    )


def training_data(fields: Sequence[Mapping[str, str]], name: str) -> tuple[TrainingData, ...]:
    """The data sets of rows of a manifest, which `name` stands for where they name none."""
    counts = Counter(
        (row.get("original_dataset") or name, row.get("licence") or UNKNOWN) for row in fields
    )
    return tuple(
        TrainingData(name=source, licence=licence, images=count)
        for (source, licence), count in counts.most_common()
    )


def _settings(config: LoopConfig) -> dict[str, Any]:
    """Without folders, which say more of a machine than of a model."""
    return config.model_dump(mode="json", exclude={"data", "output"})
