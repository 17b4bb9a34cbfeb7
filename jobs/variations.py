"""`medphantom evaluate variations`: do drawn variations of training tiles improve a classifier?"""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gen.errors import InvalidInput
from jobs.bars import Bars, bars
from jobs.classifier_runs import ClassifierRuns
from jobs.device import Precision
from jobs.drawn_variations import DrawnVariations, VariationConfig
from jobs.fractions import parse_fractions
from jobs.targets import MixedPrecision, interval

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.metrics.paired import HeldOut
    from gen.training.labelled_tiles import LabelledTiles, Split

    Rows = NDArray[np.intp]

REAL, CLASSICAL, VARIED, BOTH = (
    "real", "real+classical", "real+variations", "real+variations+classical",
)  # fmt: skip
# what is shown: (variations beside the tiles, turned and jittered)
ARMS = {
    REAL: (False, False),
    CLASSICAL: (False, True),
    VARIED: (True, False),
    BOTH: (True, True),
}
_COMPARED_SIDE = 128  # of tiles that are searched for copies
GAPS = ((CLASSICAL, REAL), (VARIED, REAL), (BOTH, REAL), (BOTH, CLASSICAL))


@dataclass(frozen=True)
class TileUtilityConfig:
    """Which tiles, which shares of them, and what is made of them; `out` is a folder."""

    data: Path
    out: Path
    pattern: str = "*"
    label: str = "findings"
    fractions: tuple[float, ...] = (0.05, 0.2, 1.0)
    num_seeds: int = 5
    num_variations: int = 2
    image_size: int = 128
    num_training_steps: int = 300
    seed: int = 0
    drawing: VariationConfig = field(default_factory=VariationConfig)


def measure_variations(config: TileUtilityConfig, drawn: Bars) -> dict[str, Any]:
    """Accuracy and macro AUROC on held-out tiles of classifiers that were shown more or less.

    Of each fraction and seed the same tiles are shown in all arms: alone, turned and jittered, with
    variations drawn of them, or both; for as many steps, from the same first weights. What is drawn
    and what is trained is kept in `config.out`, and not done twice.

    Raises:
        InvalidInput: the tiles have fewer than two classes or too few groups, there is one seed, or
            the model draws no large images.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    from gen.metrics.paired import HeldOut
    from gen.training.labelled_tiles import read_labelled_tiles, split_tiles
    from gen.training.tile_classifier import TileClassifierConfig

    if config.num_seeds < 2:
        raise InvalidInput(f"seeds is {config.num_seeds}, but two or more tell chance; try 5")
    config.out.mkdir(parents=True, exist_ok=True)
    tiles = read_labelled_tiles(config.data, config.pattern, config.label)
    training = TileClassifierConfig(
        image_size=config.image_size, num_steps=config.num_training_steps
    )
    runs = ClassifierRuns(config.out / "runs", len(tiles.classes), training)
    groups = find_groups(tiles.at(_COMPARED_SIDE), config.out / "groups", drawn)
    split = split_tiles(tiles, groups, config.seed)
    held_out = HeldOut(tiles.labels[split.held_out], [groups[row] for row in split.held_out])
    chosen = draw_rows(config, tiles, groups, split)
    images = tiles.at(config.image_size)
    pictures = draw_pictures(config, tiles, images, chosen, runs, drawn)
    found = train_arms(config, pictures, tiles, images[split.held_out], chosen, runs, drawn)
    return {
        **asdict(config),
        "data": str(config.data),
        "out": str(config.out),
        "training": training.model_dump(mode="json"),
        "classes": list(tiles.classes),
        "num_tiles": len(tiles),
        "num_groups": len(set(groups)),
        "num_training_tiles": len(split.train),
        "num_held_out_tiles": len(split.held_out),
        "num_held_out_groups": len(set(held_out.groups)),
        "results": [_figures(fraction, found, held_out, config) for fraction in config.fractions],
        "omissions": _omissions(tiles, split),
    }


def find_groups(images: "Tensor", folder: Path, drawn: Bars) -> list[int]:
    """The groups of near-duplicates of images (N, 3, S, S) uint8, kept in the folder."""
    import hashlib

    from gen.data.atomic import atomic_file
    from gen.metrics.near_duplicates import group_near_duplicates

    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    file = folder / f"{digest[:32]}.json"
    if not file.exists():
        groups = group_near_duplicates(images, drawn.bar("looking for copies among tiles"))
        with atomic_file(file) as stream:
            stream.write(json.dumps(groups).encode())
    kept: list[int] = json.loads(file.read_text())
    return kept


def draw_rows(
    config: TileUtilityConfig, tiles: "LabelledTiles", groups: Sequence[int], split: "Split"
) -> "dict[tuple[float, int], Rows]":
    """The training tiles of each fraction and seed."""
    from gen.training.fractions import draw_fraction

    return {
        (fraction, seed): draw_fraction(tiles.labels, groups, split.train, fraction, seed)
        for fraction in config.fractions
        for seed in seeds_of(config)
    }


def seeds_of(config: TileUtilityConfig) -> range:
    """Of the classifiers."""
    return range(config.seed, config.seed + config.num_seeds)


def draw_pictures(
    config: TileUtilityConfig,
    tiles: "LabelledTiles",
    images: "Tensor",
    chosen: "dict[tuple[float, int], Rows]",
    runs: ClassifierRuns,
    drawn: Bars,
) -> "dict[int, Tensor]":
    """Of each tile that anybody trains on, it and its variations, (1 + V, 3, S, S) uint8.

    How long all will take is said once a few are drawn; no tile but these is varied.
    """
    import torch

    from gen.training.labelled_tiles import shrink

    rows = sorted({int(row) for each in chosen.values() for row in each})
    store = load_store(config)
    missing = store.missing([tiles.pixels[row] for row in rows], config.num_variations)
    started = time.monotonic()
    for number, done in enumerate(store.draw(missing, drawn.bar("drawing variations"))):
        if number == 0:
            each = (time.monotonic() - started) / done
            _foretell(config, len(missing), each, images, runs, drawn)
    if not missing:
        _foretell(config, 0, 0.0, images, runs, drawn)
    return {
        row: torch.stack(
            [images[row]]
            + [
                shrink(store.read(tiles.pixels[row], number), config.image_size)
                for number in range(config.num_variations)
            ]
        )
        for row in rows
    }


def load_store(config: TileUtilityConfig) -> DrawnVariations:
    """The variations that the model draws."""
    import torch

    from pipelines.large_image import LargeImagePipeline

    pipeline = LargeImagePipeline.from_pretrained(config.drawing.model)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return DrawnVariations(pipeline, config.drawing, config.out / "variations")


def _foretell(
    config: TileUtilityConfig,
    num_variations: int,
    seconds_each: float,
    images: "Tensor",
    runs: ClassifierRuns,
    drawn: Bars,
) -> None:
    """Say how much work there is, and how long it will take at the pace of a first bit of it."""
    num_runs = len(config.fractions) * config.num_seeds * len(ARMS)
    drawing, training = num_variations * seconds_each, num_runs * runs.seconds_each(images)
    drawn.say(
        f"{num_variations} variations to draw, about {drawing / 60:.0f} minutes, and {num_runs}"
        f" classifiers to train, at most {training / 60:.0f} minutes; kept in {config.out}, and not"
        " done twice"
    )


def train_arms(
    config: TileUtilityConfig,
    pictures: "dict[int, Tensor]",
    tiles: "LabelledTiles",
    held_out: "Tensor",
    chosen: "dict[tuple[float, int], Rows]",
    runs: ClassifierRuns,
    drawn: Bars,
) -> "dict[tuple[float, str], NDArray[np.floating]]":
    """Probabilities (seeds, held-out tiles, classes) of each fraction and arm."""
    import numpy as np
    import torch

    from gen.training.tile_classifier import TrainingTiles

    report = drawn.bar("training classifiers")
    found = defaultdict(list)
    total = len(chosen) * len(ARMS)
    for (fraction, seed), rows in chosen.items():
        labels = torch.from_numpy(tiles.labels[rows])
        every = torch.stack([pictures[int(row)] for row in rows])
        for arm, (varied, augmented) in ARMS.items():
            shown = TrainingTiles(every if varied else every[:, :1], labels, augmented)
            found[fraction, arm].append(runs.probabilities(shown, held_out, seed))
            report(sum(map(len, found.values())), total)
    return {key: np.stack(each) for key, each in found.items()}


def _figures(
    fraction: float,
    found: "dict[tuple[float, str], NDArray[np.floating]]",
    held_out: "HeldOut",
    config: TileUtilityConfig,
) -> dict[str, Any]:
    """Each arm's figures, and by how much one arm's exceed another's."""
    from gen.metrics.paired import compare

    def as_row(arm: str, other: str | None = None) -> dict[str, Any]:
        beside = None if other is None else found[fraction, other]
        estimates = compare(found[fraction, arm], held_out, beside, seed=config.seed)
        return {name: asdict(estimate) for name, estimate in estimates.items()}

    return {
        "fraction": fraction,
        "arms": {arm: as_row(arm) for arm in ARMS},
        "gaps": {f"{arm} - {other}": as_row(arm, other) for arm, other in GAPS},
    }


def _omissions(tiles: "LabelledTiles", split: "Split") -> list[str]:
    copies = f"{split.num_copies} training tile(s) are copies of held-out ones"
    return tiles.omissions + ([copies] if split.num_copies else [])


def table_of(figures: dict[str, Any]) -> Table:
    """The figures for people."""
    title = (
        f"{figures['num_groups']} groups among {figures['num_tiles']} tiles;"
        f" {figures['num_held_out_tiles']} held out"
    )
    table = Table("fraction", "shown", "accuracy", "macro AUROC", title=title)
    for each in figures["results"]:
        for name, found in (each["arms"] | each["gaps"]).items():
            cells = interval(found["accuracy"]), interval(found["macro_auroc"])
            table.add_row(f"{each['fraction']:g}", name, *cells)
        table.add_section()
    return table


def variations(
    data: Annotated[
        Path, typer.Option(exists=True, help="Folder with manifest.csv, or such a table")
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is drawn, trained and found")
    ],
    pattern: Annotated[str, typer.Option(help="Files of the manifest, as 'tiles/*'")] = "*",
    label: Annotated[str, typer.Option(help="Column with the class of each tile")] = "findings",
    model: Annotated[str, typer.Option(help="Id, folder or hub id")] = "histo-mini",
    fractions: Annotated[str, typer.Option(help="Shares of the training tiles")] = "0.05,0.2,1",
    seeds: Annotated[int, typer.Option(min=2, help="Classifiers of each kind")] = 5,
    variations: Annotated[int, typer.Option(min=1, help="Drawn of each training tile")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps of a variation")] = 25,
    guidance: Annotated[float, typer.Option(help="1 = off")] = 1.0,
    microns_per_pixel: Annotated[float, typer.Option(help="Magnification of the tiles")] = 0.5,
    image_size: Annotated[
        int, typer.Option(min=16, help="Side in pixels of what a classifier sees")
    ] = 128,
    training_steps: Annotated[
        int, typer.Option(min=1, help="Optimizer steps, the same for all")
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws and all noise")] = 0,
    mixed_precision: MixedPrecision = Precision.NO,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Whether variations drawn of training tiles make a better classifier of tissue.

    A small network is trained from scratch on a fraction of the real tiles: alone; turned, mirrored
    and jittered in colour; with variations that the model draws of those tiles; and with both. All
    are trained for as many steps and judged on the same held-out tiles, those that the manifest
    does not call `train`, or a quarter if it has no splits. Copies of one picture, turned or
    cropped as published sets hold them, are found first and never on both sides.

    What counts is the gap to turning and jittering, which cost nothing. An interval around zero
    means that these tiles cannot tell. Run it again to go on where it stopped: what is drawn and
    trained stays in --out, which holds pictures like the tiles, so mind the tiles' licence.

    Example:

    medphantom evaluate variations --data DIR --pattern 'tiles/*' --out figures --json
    """
    config = TileUtilityConfig(
        data, out, pattern, label, parse_fractions(fractions), seeds, variations, image_size,
        training_steps, seed,
        VariationConfig(model, steps, guidance, microns_per_pixel, seed, mixed_precision),
    )  # fmt: skip
    with bars() as drawn:
        figures = measure_variations(config, drawn)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    console = Console(stderr=True)
    console.print(table_of(figures))
    for line in figures["omissions"]:
        console.print(f"left out: {line}", markup=False)
    if as_json:
        typer.echo(json.dumps(figures))
