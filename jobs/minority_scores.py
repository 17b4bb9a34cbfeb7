"""`medphantom train minority-scores`: how rare a model finds each image of a data set."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.data.atomic import atomic_file
from gen.data.minority_table import ScoredImage
from gen.errors import InvalidInput
from gen.guidance.minority import DistanceKind
from jobs.bars import Bars, bars
from jobs.device import Precision, autocast
from jobs.minority_subjects import OTHER, Scorer, Subject, draws_tissue
from jobs.targets import Data, MixedPrecision, Model, Seed, give

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_GROUP = 20  # images whose quantiles mean something; smaller groups are one, "other"


@dataclass(frozen=True)
class ScoresConfig:
    """Which images are scored, by which model; `out` is a CSV table.

    Of a model that draws patches of tissue, `recipe` says how these are cut, and `crops` are
    scored. `encoder` None is cxr-encoder-mini, or the one whose embeddings such a model knows.
    """

    data: Path
    out: Path
    model: str = "cxr-mini"
    split: str = "train"
    distance: DistanceKind = "encoder"
    encoder: str | None = None
    noise_level: float = 0.6
    num_draws: int = 5
    batch_size: int = 16
    seed: int = 0
    mixed_precision: Precision = Precision.NO
    recipe: Path | None = None
    crops: int = 2000

    def settings(self) -> dict[str, Any]:
        """What scores depend on, besides what the scorer says."""
        return {
            "model": self.model,
            "distance": self.distance,
            "noise_level": self.noise_level,
            "num_draws": self.num_draws,
            "seed": self.seed,
            "mixed_precision": self.mixed_precision.value,
        }


def scorer_of(config: ScoresConfig) -> Scorer:
    """What scores images as the model is asked for them."""
    # torch is imported when something is scored
    if draws_tissue(config.model):
        from jobs.minority_tissue import TissueScorer

        return TissueScorer(config)
    from jobs.minority_chests import ChestScorer

    return ChestScorer(config)


def score_images(config: ScoresConfig, drawn: Bars) -> dict[str, Any]:
    """Score every image of a split under what it shows, and write the table.

    What is scored is kept beside the table until it is whole, so that a run that was cut off goes
    on where it was. An image's noise depends on its name alone, and so does its score.

    Raises:
        InvalidInput: the split has no usable image, or the model makes no such images.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    scorer = scorer_of(config)
    settings = {**config.settings(), **scorer.settings}
    kept = Kept(config.out, {**settings, "weight_sha256": scorer.weight_sha256})
    report = drawn.bar("scoring images")
    missing = {each.name for each in scorer.subjects} - kept.scores.keys()
    with autocast(config.mixed_precision):
        for scores in scorer.scores(missing):
            kept.add(scores)
            report(len(kept.scores), len(scorer.subjects))
    subjects = [each for each in scorer.subjects if each.name in kept.scores]
    omissions = scorer.omissions()
    if not subjects:
        raise InvalidInput(
            f"split is {config.split!r}, of which {config.data} has no image that can be scored"
            f" ({'; '.join(omissions)}); name another"
        )
    figures = write_scores(config.out, subjects, kept.scores)
    with atomic_file(config.out.with_suffix(".json"), overwrite=True) as stream:
        stream.write((json.dumps({**settings, **figures}, indent=1) + "\n").encode())
    kept.forget()
    weights = {"weight_sha256": scorer.weight_sha256}
    return {**settings, **weights, **figures, "omissions": omissions}


class Kept:
    """The scores found so far, in a file of JSON lines that only grows.

    The first line says what they depend on; those of other settings are started anew.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self._file = out.with_name(f".{out.name}.part.jsonl")
        head = json.dumps(settings)
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
    out: Path, subjects: Sequence[Subject], scores: dict[str, float]
) -> dict[str, Any]:
    """Write the table in the subjects' order; how large the groups are and where quantiles lie."""
    import numpy as np

    groups = groups_of(subjects)
    values = np.array([scores[each.name] for each in subjects])
    names = np.array(groups)
    overall, within = ranks(values), np.empty(len(values))
    for group in set(groups):
        within[names == group] = ranks(values[names == group])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*ScoredImage._fields, *subjects[0].place])
    for each, *cells in zip(subjects, groups, values, overall, within, strict=True):
        group, score, *quantiles = cells
        shares = (f"{share:.4f}" for share in quantiles)
        table.writerow([each.file, group, f"{score:.6g}", *shares, *each.place.values()])
    with atomic_file(out, overwrite=True) as stream:
        stream.write(text.getvalue().encode())
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        "table": str(out),
        "num_images": len(subjects),
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


def groups_of(subjects: Sequence[Subject]) -> list[str]:
    """The kind of each; small groups are one."""
    counts = Counter(each.kind for each in subjects)
    return [each.kind if counts[each.kind] >= LEAST_GROUP else OTHER for each in subjects]


def command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Table to write")] = Path("minority-scores.csv"),
    model: Model = "cxr-mini",
    split: Annotated[str, typer.Option(help="Rows that are scored")] = "train",
    distance: Annotated[
        DistanceKind, typer.Option(help="In what image and reconstruction are compared")
    ] = "encoder",
    encoder: Annotated[
        str | None, typer.Option(help="Of --distance encoder; cxr-encoder-mini, or tissue's own")
    ] = None,
    noise_level: Annotated[
        float, typer.Option(help="Share of the schedule that images are noised to")
    ] = 0.6,
    draws: Annotated[int, typer.Option(min=1, help="Of noise, an image")] = 5,
    seed: Seed = 0,
    mixed_precision: MixedPrecision = Precision.NO,
    recipe: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Of a model of tissue: how crops are cut"),
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="Of tissue, drawn as in training")] = 2000,
) -> None:
    """How rare a model finds each image of a data set: a table of minority scores.

    A model that sees an image through much noise falls back on what is common; how far it falls
    from the image is the image's score. Columns: file, group (findings, child or adult), score,
    and the share of images, and of the group's, that are commoner. Run it again to go on where it
    stopped.

    Of a model that draws tissue from embeddings, crops are scored: a group is a magnification, and
    more columns say where the crop lies in its file.
    """
    config = ScoresConfig(
        data, out, model, split, distance, encoder, noise_level, draws, seed=seed,
        mixed_precision=mixed_precision, recipe=recipe, crops=crops,
    )  # fmt: skip
    with bars() as drawn:
        figures = score_images(config, drawn)
    table = Table("group", "images", "median", "95 % are below", title=f"scores by {model}")
    for name, each in figures["groups"].items():
        cells = (f"{each['quantiles'][level]:.4g}" for level in ("0.5", "0.95"))
        table.add_row(name, str(each["images"]), *cells)
    give(table, figures, None)
