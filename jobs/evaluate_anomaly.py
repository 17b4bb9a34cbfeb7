"""`medphantom evaluate anomaly`: do detectors find lesions, and is what they heal healthy?"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from gen.errors import InvalidInput
from jobs.anomaly.detectors import DetectorConfig, detectors
from jobs.anomaly.figures import Asked, boxed_figures, planted_figures
from jobs.anomaly.sets import AnomalySets, Examined, Sets
from jobs.anomaly.sheet import write_sheet
from jobs.bars import Bars, bars
from jobs.device import Precision
from jobs.targets import MixedPrecision, Model, Seed, give, interval, seed_of

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.anomaly.detections import Detections, Detector

Rule = Literal["any", "half"]


@dataclass(frozen=True)
class AnomalyConfig:
    """Which detectors, on which images; `detecting.folder` is where everything is written.

    Args:
        data: folder with manifest.csv; `train` is trained on, `val` sets thresholds, `test` judges.
        detecting: the detectors.
        num_planted: lesions painted into healthy test images.
        num_calibration: healthy `val` images that set thresholds, at most.
        false_positive_rate: of the pixels of these.
        map_size: side in pixels that maps and masks are shrunk to.
        mask_rule: which pixels then belong to a lesion, see `gen.metrics.anomaly.binarise`.
        seed: of lesions, draws and noise.
    """

    data: Path
    detecting: DetectorConfig
    num_planted: int = 100
    num_calibration: int = 100
    false_positive_rate: float = 0.05
    map_size: int = 128
    mask_rule: Rule = "half"
    seed: int = 0


def measure_anomaly(config: AnomalyConfig, drawn: Bars) -> dict[str, Any]:
    """Every figure of every detector, and its gap to that of the first, with 95 % intervals.

    What is trained is kept in `config.detecting.folder`, with a sheet of pictures a detector.

    Raises:
        InvalidInput: a split has no healthy image, or a setting does not suit.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    from gen.metrics.weighted import bootstrap, gap

    size = config.detecting.image_size
    if config.map_size < 1 or size % config.map_size:
        raise InvalidInput(f"map_size is {config.map_size}, but must divide {size}; try {size}")
    config.detecting.folder.mkdir(parents=True, exist_ok=True)
    source = AnomalySets(config.data, size, config.seed)
    sets = read_sets(config, source)
    asked: dict[str, dict[str, Asked]] = {}
    costs: dict[str, dict[str, Any]] = {}
    made = detectors(config.detecting, cache(lambda: _training(source)), drawn)
    for name, detector in made.items():
        asked[name], costs[name] = examine(name, detector, sets, config, drawn)
    found: dict[str, dict[str, Any]] = {}
    gaps: dict[str, dict[str, Any]] = {}
    first = config.detecting.names[0]
    report = drawn.bar("resampling images")
    for number, (name, figures) in enumerate(asked.items()):
        for what, each in figures.items():
            basis = each.patients, each.groups
            found.setdefault(name, {})[what] = asdict(bootstrap(each.figure, *basis))
            if name != first:
                difference = gap(each.figure, asked[first][what].figure)
                gaps.setdefault(f"{name} - {first}", {})[what] = asdict(
                    bootstrap(difference, *basis)
                )
        report(number + 1, len(asked))
    return {
        **_settings(config),
        "images": {
            "calibration": len(sets.calibration),
            "healthy": len(sets.healthy),
            "planted": len(sets.planted.lesioned),
            "boxed": len(sets.boxed.examined) if sets.boxed else 0,
            "healthy_beside_boxed": int(sets.peers.sum()),
        },
        "detectors": {name: {**costs[name], "figures": found[name]} for name in asked},
        "gaps": gaps,
        "omissions": [*source.omissions, *source.pictures.lines()],
    }


def _settings(config: AnomalyConfig) -> dict[str, Any]:
    settings = {**asdict(config), "data": str(config.data)}
    settings["detecting"] = {**asdict(config.detecting), "folder": str(config.detecting.folder)}
    return settings


def _training(source: AnomalySets) -> Any:
    import torch

    return torch.stack([each.pixels for each in source.healthy("train")])


def read_sets(config: AnomalyConfig, source: AnomalySets) -> Sets:
    """Read the images and paint the lesions."""
    import numpy as np

    from gen.metrics.intervals import MIN_COUNT

    healthy = source.examine(source.healthy("test"))
    boxed = source.boxed("test")
    sources = {source.source(name) for name in boxed.examined.names} if boxed else set()
    peers = np.array([source.source(name) in sources for name in healthy.names])
    if boxed and min(len(set(boxed.examined.patients)), peers.sum()) < MIN_COUNT:
        source.omissions.append(
            f"{len(boxed.examined)} image(s) with boxes are too few, or have too few healthy ones"
            " of their data set beside them"
        )
        boxed, peers = None, np.zeros_like(peers)
    return Sets(
        calibration=source.examine(source.healthy("val", config.num_calibration)),
        healthy=healthy,
        planted=source.planted(healthy, config.num_planted),
        boxed=boxed,
        peers=peers,
    )


def examine(
    name: str, detector: "Detector", sets: Sets, config: AnomalyConfig, drawn: Bars
) -> tuple[dict[str, Asked], dict[str, Any]]:
    """The figures to ask of a detector, and what it cost; its sheet of pictures is written."""
    from gen.metrics.anomaly import healthy_threshold, shrink

    examined = {
        "calibration": sets.calibration,
        "healthy": sets.healthy,
        "planted": sets.planted.lesioned,
        **({"boxed": sets.boxed.examined} if sets.boxed else {}),
    }
    started, total = time.monotonic(), sum(map(len, examined.values()))
    report, done = drawn.bar(f"detecting: {name}"), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        report(done, total)

    found = {what: detect(detector, each, config.seed, count) for what, each in examined.items()}
    seconds = time.monotonic() - started
    maps = {what: shrink(each.maps.numpy(), config.map_size) for what, each in found.items()}
    threshold = healthy_threshold(maps["calibration"], config.false_positive_rate)
    file = config.detecting.folder / f"{name}.png"
    write_sheet(file, sets, found, threshold)
    asked = planted_figures(sets, maps, found, threshold, config.mask_rule)
    if sets.boxed:
        asked |= boxed_figures(sets, sets.boxed, maps, threshold)
    return asked, {
        "threshold": threshold,
        "network_calls_per_image": sum(x.num_network_calls for x in found.values()) / total,
        "seconds_per_image": seconds / total,
        "sheet": str(file),
    }


def detect(
    detector: "Detector", examined: Examined, seed: int, count: Callable[[int], None]
) -> "Detections":
    """What is found in all images, a few at a time; an image's noise follows from its name.

    `count` is told how many more are done.
    """
    import torch

    from gen.anomaly.detections import Detections
    from jobs.device import rows_at_once

    seeds = [seed_of(seed, name) for name in examined.names]
    few = rows_at_once()
    parts = []
    for start in range(0, len(examined), few):
        chosen = slice(start, start + few)
        parts.append(detector(examined.images[chosen], seeds[chosen]))
        count(len(seeds[chosen]))
    return Detections(
        torch.cat([part.maps.float().cpu() for part in parts]),
        torch.cat([part.healthy.float().cpu() for part in parts]),
        sum(part.num_network_calls for part in parts),
    )


def table_of(figures: dict[str, Any]) -> Table:
    """The figures for people: a row a figure, a column a detector."""
    counted = ", ".join(f"{count} {what}" for what, count in figures["images"].items())
    found = figures["detectors"]
    table = Table("", *found, title=f"{counted.replace('_', ' ')}; masks: {figures['mask_rule']}")
    for what in next(iter(found.values()))["figures"]:
        cells = (interval(each["figures"][what]) for each in found.values())
        table.add_row(what.replace("_", " "), *cells)
    for what in ("network_calls_per_image", "seconds_per_image"):
        table.add_row(what.replace("_", " "), *(f"{each[what]:.2f}" for each in found.values()))
    return table


def parse_names(text: str) -> tuple[str, ...]:
    """Names of text such as "pca,anoddpm"."""
    return tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))


def command(
    data: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder with manifest.csv")
    ],
    out: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for what is trained, pictures and figures"),
    ],
    names: Annotated[
        str, typer.Option("--detectors", help="Some of these; gaps are to the first")
    ] = "pca,autoencoder,anoddpm",
    model: Model = "cxr-mini",
    image_size: Annotated[int, typer.Option(min=16, help="Side of the images in pixels")] = 256,
    map_size: Annotated[int, typer.Option(min=1, help="Side that maps are shrunk to")] = 128,
    mask_rule: Annotated[
        Rule, typer.Option(help="Pixels of a lesion: those it touches, or covers by half")
    ] = "half",
    planted: Annotated[int, typer.Option("-n", "--planted", min=4, help="Lesions planted")] = 100,
    calibration: Annotated[
        int, typer.Option(min=1, help="Healthy images that set thresholds, at most")
    ] = 100,
    rate: Annotated[float, typer.Option(help="Share of healthy pixels above the threshold")] = 0.05,
    noise_level: Annotated[float, typer.Option(help="Of AnoDDPM: share of the schedule")] = 0.25,
    steps: Annotated[int, typer.Option(min=1, help="Of AnoDDPM: for the whole schedule")] = 25,
    components: Annotated[int, typer.Option(min=1, help="Of PCA")] = 64,
    training_steps: Annotated[int, typer.Option(min=1, help="Of the autoencoder")] = 600,
    seed: Seed = 0,
    mixed_precision: MixedPrecision = Precision.NO,
) -> None:
    """How well detectors of anomalies find lesions, and whether their healthy images are healthy.

    Lesions are painted into healthy test images, so that their outline is known: average precision
    and Dice count pixels, AUPRO lesions; best Dice searches its threshold on the test itself, the
    other takes it from healthy images alone. Healing is the share of a lesion that is gone from the
    healthy image, restoration how much of an image without one is kept: a copy restores all and
    heals nothing. Of images with boxes, a map should have its maximum in one, more often than maps
    of healthy images have it there by habit.

    PCA and the autoencoder are trained on healthy `train` images and stay in --out, which also
    holds a sheet of pictures for each detector: look at them, means hide blur. They are the images
    of --data, so mind its licence. Images are cropped to squares, as training does; medphantom
    anomaly pads them.

    Example:

    medphantom evaluate anomaly --data DIR --out figures
    """
    detecting = DetectorConfig(
        parse_names(names), image_size, out, model, noise_level, steps, components, training_steps,
        seed, mixed_precision,
    )  # fmt: skip
    config = AnomalyConfig(data, detecting, planted, calibration, rate, map_size, mask_rule, seed)
    with bars() as drawn:
        figures = measure_anomaly(config, drawn)
    give(table_of(figures), figures, out / "figures.json")
