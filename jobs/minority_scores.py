"""`medphantom train minority-scores`: how rare a model finds each image of a data set."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.data.atomic import atomic_file
from gen.data.minority_table import ScoredImage
from gen.errors import InvalidInput
from jobs.bars import Bars, bars
from jobs.device import Precision, autocast
from jobs.targets import Data, Drawn, MixedPrecision, Model, Pictures, Seed, give

if TYPE_CHECKING:  # torch is imported when something is scored
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.collection import Item
    from gen.encoders.encoder import Encoder
    from pipelines.text_to_cxr import TextToCXRPipeline

LEAST_GROUP = 20  # images whose quantiles mean something; smaller groups are one, "other"
OTHER = "other"


class Distance(StrEnum):
    """In what an image and its reconstruction are compared."""

    ENCODER = "encoder"
    PIXEL = "pixel"
    LATENT = "latent"


@dataclass(frozen=True)
class ScoresConfig:
    """Which images are scored, by which model; `out` is a CSV table."""

    data: Path
    out: Path
    model: str = "cxr-mini"
    split: str = "train"
    distance: Distance = Distance.ENCODER
    encoder: str = "cxr-encoder-mini"
    noise_level: float = 0.6
    num_draws: int = 5
    batch_size: int = 16
    seed: int = 0
    mixed_precision: Precision = Precision.NO

    def settings(self) -> dict[str, Any]:
        """What scores depend on."""
        return {
            "model": self.model,
            "distance": self.distance.value,
            "encoder": self.encoder if self.distance is Distance.ENCODER else None,
            "noise_level": self.noise_level,
            "num_draws": self.num_draws,
            "seed": self.seed,
            "mixed_precision": self.mixed_precision.value,
        }


def score_images(config: ScoresConfig, drawn: Bars) -> dict[str, Any]:
    """Score every image of a split under its own prompt, and write the table.

    What is scored is kept beside the table until it is whole, so that a run that was cut off goes
    on where it was. An image's noise depends on its name alone, and so does its score.

    Raises:
        InvalidInput: the split has no usable image, or the model makes no images from text.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    import torch

    from gen.data.collection import read_collection
    from gen.encoders.loading import load_encoder
    from pipelines.text_to_cxr import TextToCXRPipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = TextToCXRPipeline.from_pretrained(config.model, torch_dtype=torch.float32)
    pipeline.to(device)
    encoder = load_encoder(config.encoder, device) if config.distance is Distance.ENCODER else None
    found = read_collection(config.data, config.split)
    pictures = Pictures(pipeline.default_size)
    kept = Kept(config, pipeline.weight_sha256)
    report = drawn.bar("scoring images")
    missing = [item for item in found.items if item.name not in kept.scores]
    usable = pictures.usable(missing)
    while batch := list(islice(usable, config.batch_size)):
        with autocast(config.mixed_precision):
            values = score_batch(pipeline, encoder, batch, config)
        kept.add({each.item.name: value for each, value in zip(batch, values, strict=True)})
        report(len(kept.scores), len(found.items))
    items = [item for item in found.items if item.name in kept.scores]
    if not items:
        raise InvalidInput(
            f"split is {config.split!r}, of which {config.data} has no image that can be scored"
            f" ({'; '.join(pictures.lines())}); name another"
        )
    figures = write_scores(config, items, kept.scores)
    with atomic_file(config.out.with_suffix(".json"), overwrite=True) as stream:
        stream.write((json.dumps({**config.settings(), **figures}, indent=1) + "\n").encode())
    kept.forget()
    omissions = [*found.omissions, *pictures.lines()]
    return {
        **config.settings(),
        "weight_sha256": kept.weight_sha256,
        **figures,
        "omissions": omissions,
    }


def score_batch(
    pipeline: "TextToCXRPipeline",
    encoder: "Encoder | None",
    batch: Sequence[Drawn],
    config: ScoresConfig,
) -> list[float]:
    """Scores of images made ready."""
    import torch

    from gen.denoising import make_generators
    from gen.engine import run
    from gen.training.captioned import encode_images
    from pipelines.rarity import score_latents

    pixels = torch.stack([each.pixels for each in batch])
    process = score_latents(
        pipeline,
        encode_images(pipeline.vae, pixels, pipeline.unet.device),
        [each.item.prompt or "" for each in batch],
        make_generators([seed_of(config.seed, each.item.name) for each in batch]),
        config.distance.value,
        config.noise_level,
        config.num_draws,
    )
    networks = dict(pipeline.networks)
    if encoder is not None:
        networks["embedder"] = encoder.embed
    return [float(value) for value in run(process, networks)]


def seed_of(seed: int, name: str) -> int:
    """Of an image's noise."""
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:15], 16)


class Kept:
    """The scores found so far, in a file of JSON lines that only grows.

    The first line says what they depend on; those of other settings are started anew.
    """

    def __init__(self, config: ScoresConfig, weight_sha256: str) -> None:
        self.weight_sha256 = weight_sha256
        self._file = config.out.with_name(f".{config.out.name}.part.jsonl")
        head = json.dumps({**config.settings(), "weight_sha256": weight_sha256})
        self.scores: dict[str, float] = {}
        lines = self._file.read_text().split("\n") if self._file.exists() else []
        if lines[:1] == [head]:
            # what follows the last line break was cut off in mid-write
            self.scores = dict(map(json.loads, lines[1:-1]))
        kept = [json.dumps(pair) for pair in self.scores.items()]
        self._file.write_text("".join(f"{line}\n" for line in [head, *kept]))

    def add(self, scores: dict[str, float]) -> None:
        """Keep more."""
        self.scores |= scores
        with self._file.open("a") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in scores.items())

    def forget(self) -> None:
        """Once they are in the table."""
        self._file.unlink()


def write_scores(
    config: ScoresConfig, items: "Sequence[Item]", scores: dict[str, float]
) -> dict[str, Any]:
    """Write the table in the images' order; how large the groups are and where quantiles lie."""
    import numpy as np

    groups = groups_of(items)
    values = np.array([scores[item.name] for item in items])
    names = np.array(groups)
    overall, within = ranks(values), np.empty(len(values))
    for group in set(groups):
        within[names == group] = ranks(values[names == group])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(ScoredImage._fields)
    for item, *cells in zip(items, groups, values, overall, within, strict=True):
        group, score, *quantiles = cells
        table.writerow([item.name, group, f"{score:.6g}", *(f"{each:.4f}" for each in quantiles)])
    with atomic_file(config.out, overwrite=True) as stream:
        stream.write(text.getvalue().encode())
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        "table": str(config.out),
        "num_images": len(items),
        "groups": {
            group: {
                "images": int((names == group).sum()),
                "quantiles": dict(
                    zip(map(str, levels), np.quantile(values[names == group], levels), strict=True)
                ),
            }
            for group in sorted(set(groups))
        },
    }


def ranks(values: "NDArray[np.floating]") -> "NDArray[np.floating]":
    """The share of values (N,) below each, half of those that equal it with them: in (0, 1)."""
    import numpy as np

    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(values))


def groups_of(items: "Sequence[Item]") -> list[str]:
    """What each image shows, see `Labels.kind`; small groups are one."""
    names = [item.labels.kind if item.labels else OTHER for item in items]
    counts = Counter(names)
    return [name if counts[name] >= LEAST_GROUP else OTHER for name in names]


def command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Table to write")] = Path("minority-scores.csv"),
    model: Model = "cxr-mini",
    split: Annotated[str, typer.Option(help="Rows that are scored")] = "train",
    distance: Annotated[
        Distance, typer.Option(help="In what image and reconstruction are compared")
    ] = Distance.ENCODER,
    encoder: Annotated[str, typer.Option(help="Of --distance encoder")] = "cxr-encoder-mini",
    noise_level: Annotated[
        float, typer.Option(help="Share of the schedule that images are noised to")
    ] = 0.6,
    draws: Annotated[int, typer.Option(min=1, help="Of noise, an image")] = 5,
    seed: Seed = 0,
    mixed_precision: MixedPrecision = Precision.NO,
) -> None:
    """How rare a model finds each image of a data set: a table of minority scores.

    A model that sees an image through much noise falls back on what is common; how far it falls
    from the image is the image's score. Columns: file, group (findings, child or adult), score,
    and the share of images, and of the group's, that are commoner. Run it again to go on where it
    stopped.
    """
    config = ScoresConfig(
        data, out, model, split, distance, encoder, noise_level, draws, seed=seed,
        mixed_precision=mixed_precision,
    )  # fmt: skip
    with bars() as drawn:
        figures = score_images(config, drawn)
    table = Table("group", "images", "median", "95 % are below", title=f"scores by {model}")
    for name, each in figures["groups"].items():
        cells = (f"{each['quantiles'][level]:.4g}" for level in ("0.5", "0.95"))
        table.add_row(name, str(each["images"]), *cells)
    give(table, figures, None)
