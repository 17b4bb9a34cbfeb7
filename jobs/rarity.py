"""`medphantom evaluate rarity`: are sets of images rarer than one another, and still real?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.data.minority_table import read_minority_scores
from gen.errors import InvalidInput
from jobs.audit.command import CACHE, Cache, EncoderId
from jobs.bars import Bars, bars
from jobs.targets import Out, Seed, give, interval

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray

    from jobs.audit.sets import ImageSet

NUM_DRAWS = 40
MIN_TAIL = 40  # images of the tail: a half must fill a covariance
REAL, TAIL = "real", "real tail"
SHOWN = ("average_knn", "outlier_factor", "rarity", "precision", "recall", "frechet_to_tail")


@dataclass(frozen=True)
class RarityConfig:
    """Sets that are judged by one set of real images, and the table that says which are rare."""

    synthetic: tuple[Path, ...]
    real: Path
    scores: Path
    real_split: str = "train"
    tail: float = 0.1
    encoder: str = "cxr-encoder-mini"
    cache: Path = CACHE
    seed: int = 0


def measure_rarity(config: RarityConfig, drawn: Bars) -> dict[str, Any]:
    """Figures of every set, of real images and of their rarest, with 95 % intervals.

    In each of `NUM_DRAWS` draws one half of the real patients is what half of each set is measured
    against, and the other half of the patients is judged as a set is.

    Raises:
        InvalidInput: a set cannot be read, or too few real images are in the table.
    """
    import numpy as np

    from gen.data.collection import read_collection
    from gen.encoders.loading import load_encoder
    from gen.metrics.intervals import disjoint_halves, estimate
    from jobs.audit.sets import read_set

    if not 0 < config.tail < 1:
        raise InvalidInput(f"tail is {config.tail}, but must be above 0 and below 1; try 0.1")
    encoder = load_encoder(config.encoder)
    omissions: list[str] = []

    def read(what: str, path: Path, split: str | None) -> "ImageSet":
        collection = read_collection(path, split)
        return read_set(what, collection, encoder, config.cache, drawn, omissions)

    real = read("real", config.real, config.real_split)
    is_rare = rare_rows(real, config.scores, config.tail)
    sets = {set_name(path): read("synthetic", path, None).features for path in config.synthetic}
    rng = np.random.default_rng(config.seed)
    report = drawn.bar("measuring rarity")
    draws: dict[str, list[Mapping[str, float]]] = {}
    for number in range(NUM_DRAWS):
        left, right = disjoint_halves(real.patients, rng)
        judged = {REAL: real.features[left], TAIL: real.features[left[is_rare[left]]]}
        for name, features in sets.items():
            judged[name] = features[rng.permutation(len(features))[: len(features) // 2]]
        reference, rare = real.features[right], real.features[right[is_rare[right]]]
        for name, features in judged.items():
            draws.setdefault(name, []).append(figures_of(features, reference, rare))
        report(number + 1, NUM_DRAWS)
    return {
        "encoder": encoder.id,
        "real_images": len(real),
        "tail_images": int(is_rare.sum()),
        "sets": {
            name: {figure: vars(estimate([each[figure] for each in found])) for figure in found[0]}
            for name, found in draws.items()
        },
        "omissions": omissions,
    }


def set_name(path: Path) -> str:
    """Of a folder, or of the folder that a table lies in."""
    return path.resolve().name if path.is_dir() else path.resolve().stem


def rare_rows(real: "ImageSet", scores: Path, tail: float) -> "NDArray[np.bool_]":
    """Which real images (N,) are among the rarest by a table of minority scores.

    Raises:
        InvalidInput: the table cannot be read, or too few of the images are.
    """
    import numpy as np

    quantiles = {row.file: row.quantile for row in read_minority_scores(scores)}
    rare = np.array([quantiles.get(item.name, 0.0) > 1 - tail for item in real.items])
    if rare.sum() < MIN_TAIL:
        raise InvalidInput(
            f"tail is {tail}, which is {rare.sum()} of {len(rare)} real images, but {MIN_TAIL} are"
            " needed; raise it, or score these images"
        )
    return rare


def figures_of(
    judged: "NDArray[np.floating]",
    reference: "NDArray[np.floating]",
    tail: "NDArray[np.floating]",
) -> dict[str, float]:
    """Of features (N, D) beside real ones (M, D) and the rarest of these (K, D)."""
    import numpy as np

    from gen.metrics.frechet import frechet_distance
    from gen.metrics.prdc import prdc
    from gen.metrics.rarity import average_knn, local_outlier_factor, rarity_score

    supports = prdc(judged, reference)
    rarity = rarity_score(judged, reference)
    return {
        "average_knn": float(average_knn(judged, reference).mean()),
        "outlier_factor": float(local_outlier_factor(judged, reference).mean()),
        # of those that some real image vouches for
        "rarity": float(np.nanmean(rarity)) if np.isfinite(rarity).any() else 0.0,
        "precision": supports.precision,
        "recall": supports.recall,
        "density": supports.density,
        "coverage": supports.coverage,
        "frechet_to_tail": frechet_distance(judged, tail),
    }


def command(
    synthetic: Annotated[
        list[Path], typer.Argument(exists=True, help="Sets of images, plain sampling first")
    ],
    real: Annotated[
        Path, typer.Option("--real", "--data", exists=True, help="What the model was trained on")
    ],
    scores: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Table of train minority-scores")
    ],
    real_split: Annotated[str, typer.Option(help="Rows of --real")] = "train",
    tail: Annotated[float, typer.Option(help="Share of real images that count as rare")] = 0.1,
    encoder: EncoderId = "cxr-encoder-mini",
    out: Out = None,
    cache: Cache = CACHE,
    seed: Seed = 0,
) -> None:
    """Whether sets of images hold more of the rare, and are still as real.

    AvgkNN, local outlier factor and rarity score are larger for what lies where real images are
    few; precision says whether it lies among real images at all; the Fréchet distance to the real
    tail, the images of highest minority score, whether it is rare in the way these are. Real images
    and the real tail stand beside, judged by other patients. Intervals cover that other patients
    and other images might have been drawn.

    Example:

    medphantom evaluate rarity plain rare --real DIR --scores minority-scores.csv
    """
    config = RarityConfig(tuple(synthetic), real, scores, real_split, tail)
    config = replace(config, encoder=encoder, cache=cache, seed=seed)
    with bars() as drawn:
        figures = measure_rarity(config, drawn)
    table = Table("set", *SHOWN)
    for name, each in figures["sets"].items():
        table.add_row(name, *(interval(each[figure]) for figure in SHOWN))
    give(table, figures, out)
