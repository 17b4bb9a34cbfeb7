"""`medphantom evaluate`: measure synthetic images against real ones."""

import csv
import json
import random
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.data.captions import Labels
    from gen.training.dataset import ChestXrays

commands = typer.Typer(
    no_args_is_help=True, help="Measure synthetic images against real ones, beside a real floor."
)


class Population(StrEnum):
    """Whose radiographs."""

    ALL = "all"
    CHILDREN = "children"
    ADULTS = "adults"

    def holds(self, labels: "Labels") -> bool:
        """Whether a radiograph with these labels belongs to it."""
        return self is Population.ALL or labels.child == (self is Population.CHILDREN)


Images = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Folder that `generate` wrote")
]
Data = Annotated[
    Path, typer.Option(exists=True, file_okay=False, help="Real images: folder with manifest.csv")
]
EncoderId = Annotated[str, typer.Option(help="Encoder: id or folder; any transformers ViT works")]
Split = Annotated[str, typer.Option(help="Rows of the manifest to measure against")]
Size = Annotated[int, typer.Option(min=32, help="Pixels a side that images are compared at")]


def evaluate_fidelity(
    images: Path, data: Path, encoder_id: str, split: str, population: Population, size: int
) -> dict[str, Any]:
    """Fréchet distance beside its floor, and the spectrum's ratios, of a folder of images."""
    from gen.metrics.encoders import load_encoder
    from gen.metrics.features import features_of
    from gen.metrics.frechet import frechet_distance
    from gen.metrics.intervals import against_floor
    from gen.metrics.spectrum import band_ratios

    generated, _, errors = read_generated(images, population, size)
    real = keep(read_real(data, split, size), population)
    encoder = load_encoder(encoder_id)
    compared = against_floor(
        frechet_distance,
        features_of(generated, encoder),
        features_of(real.images, encoder),
        patients_of(real),
    )
    return {
        "encoder": encoder_id,
        "population": population.value,
        "split": split,
        "num_generated": len(generated),
        "num_real": len(real),
        "frechet": {**asdict(compared), "ratio": compared.ratio},
        "spectrum_ratio": band_ratios(generated, real.images),
        "errors": errors,
    }


def evaluate_alignment(
    images: Path, data: Path, encoder_id: str, split: str, size: int
) -> dict[str, Any]:
    """AUROC of classifiers trained on real images, on what the prompts of a folder asked for."""
    import numpy as np

    from gen.metrics.alignment import auroc, describe, train_judge
    from gen.metrics.encoders import load_encoder

    generated, asked, errors = read_generated(images, Population.ALL, size)
    encoder = load_encoder(encoder_id)
    seen = describe(generated, encoder)
    train, test = read_real(data, "train", size), read_real(data, split, size)
    described = {name: describe(real.images, encoder) for name, real in (("a", train), ("b", test))}

    def judge(chosen: Any, positive: Any) -> dict[str, Any]:
        """Train on `chosen` real images to tell the positive ones, then ask about generated."""
        index = [np.array([chosen(each) for each in group]) for group in labels]
        truth = [np.array([positive(each) for each in group]) for group in labels]
        trained = train_judge(
            described["a"][index[0]],
            truth[0][index[0]],
            described["b"][index[1]],
            truth[1][index[1]],
        )
        scores, wanted = trained.score(seen[index[2]]), truth[2][index[2]]
        both = 0 < wanted.sum() < len(wanted)
        return {
            "generated": asdict(auroc(scores, wanted)) if both else None,
            "real": asdict(trained.real_auroc),
            "num_generated": len(wanted),
        }

    labels = (train.labels, test.labels, asked)
    return {
        "encoder": encoder_id,
        "split": split,
        "pneumonia_vs_normal_children": judge(lambda x: x.child, lambda x: not x.normal),
        "adult_vs_child": judge(lambda _: True, lambda x: not x.child),
        "errors": errors,
    }


def read_generated(
    folder: Path, population: Population, size: int
) -> tuple[Any, list[Any], list[str]]:
    """Generated pictures (N, 1, size, size) uint8, what each was asked for, and errors."""
    from gen.data.manifest import read_metadata
    from gen.data.prompt_labels import labels_in
    from gen.metrics.features import read_pictures

    rows = read_metadata(folder)
    asked = {name: labels_in(row["prompt"]) for name, row in rows.items()}
    names = [name for name, labels in asked.items() if population.holds(labels)]
    if not names:
        raise InvalidInput(f"{folder} holds no image whose prompt asked for {population.value}")
    with _progress() as bar:
        task = bar.add_task("reading generated images", total=len(names))
        images, errors = read_pictures(
            [folder / name for name in names], size, lambda count: bar.advance(task, count)
        )
    if errors:
        raise InvalidInput(f"{len(errors)} images could not be read; the first: {errors[0]}")
    return images, [asked[name] for name in names], errors


def read_real(data: Path, split: str, size: int) -> "ChestXrays":
    """Real images of one split."""
    from gen.training.dataset import read_chest_xrays

    with _progress() as bar:
        task = bar.add_task(f"reading real images ({split})", total=None)
        return read_chest_xrays(
            data, split, size, lambda done, total: bar.update(task, completed=done, total=total)
        )


def keep(real: "ChestXrays", population: Population) -> "ChestXrays":
    """The part of real images that belongs to a population."""
    from gen.training.dataset import ChestXrays

    rows = [i for i, labels in enumerate(real.labels) if population.holds(labels)]
    if not rows:
        raise InvalidInput(f"the real images hold no {population.value}; choose another population")
    return ChestXrays(
        real.images[rows], [real.labels[i] for i in rows], [real.fields[i] for i in rows]
    )


def patients_of(real: "ChestXrays") -> list[str]:
    """Whose each image is; an image of nobody known counts as a patient of its own."""
    return [row.get("patient_id") or row["file"] for row in real.fields]


@commands.command()
def fidelity(
    images: Images,
    data: Data,
    encoder: EncoderId = "cxr-encoder-mini",
    split: Split = "test",
    population: Annotated[Population, typer.Option(help="Compare these only")] = Population.ALL,
    size: Size = 256,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this file")] = None,
) -> None:
    """How close generated images come to real ones.

    Fréchet distance in an encoder's features, beside the floor (real against other patients' real
    images, sets of the same size), and the power spectrum band by band up to half the Nyquist
    frequency: 1.0 is as much detail as real images hold, below 0.5 is blur.
    """
    figures = evaluate_fidelity(images, data, encoder, split, population, size)
    _show_fidelity(figures)
    _give(figures, out)


@commands.command()
def alignment(
    images: Images,
    data: Data,
    encoder: EncoderId = "cxr-encoder-mini",
    split: Split = "test",
    size: Size = 256,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this file")] = None,
) -> None:
    """Whether generated images show what their prompts asked for.

    Classifiers trained on the real `train` images judge; their AUROC on real images of the split
    stands beside their AUROC on generated ones, which is null if the prompts asked for one class
    only. High figures say that the prompt is followed, not
    that the images are good: look at them, and at `evaluate fidelity`.
    """
    figures = evaluate_alignment(images, data, encoder, split, size)
    _give(figures, out)


@commands.command()
def prompts(
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file to write, for `generate --prompts`")],
    split: Split = "test",
    population: Annotated[Population, typer.Option(help="Rows of these only")] = Population.ALL,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="Rows, drawn; all if not given")
    ] = None,
    paraphrase: Annotated[
        bool, typer.Option(help="Words that training captions never use, where there are any")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of rows and wording")] = 0,
) -> None:
    """Write the prompts of a manifest's rows, in their own or in held-out words."""
    from gen.data.captions import labels_of
    from gen.data.captions import paraphrase as in_other_words

    manifest = data / "manifest.csv"
    if not manifest.exists():
        raise InvalidInput(f"data is {data}, which has no manifest.csv; name the folder with it")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    rows = [row for row in rows if population.holds(labels_of(row))]
    if not rows:
        raise InvalidInput(
            f"{data} has no row of split {split!r} with {population.value};"
            " choose another split or population"
        )
    rng = random.Random(seed)
    chosen = rows if n is None else [rng.choice(rows) for _ in range(n)]
    if out.exists():
        raise InvalidInput(f"out is {out}, which exists; name another, nothing is overwritten")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "n"])
        for row in chosen:
            words = in_other_words(labels_of(row), rng) if paraphrase else row["prompt"]
            writer.writerow([words, 1])
    typer.echo(json.dumps({"file": str(out), "prompts": len(chosen)}))


def _show_fidelity(figures: dict[str, Any]) -> None:
    frechet, bands = figures["frechet"], figures["spectrum_ratio"]
    table = Table("measure", "value", title=f"{figures['population']}, against {figures['split']}")
    for name in ("distance", "floor"):
        each = frechet[name]
        table.add_row(
            f"Fréchet {name}", f"{each['value']:.3f}  [{each['low']:.3f}, {each['high']:.3f}]"
        )
    times = "none, it is zero" if frechet["ratio"] is None else f"{frechet['ratio']:.2f}"
    table.add_row("ratio to the floor", f"{times}  (sets of {frechet['size']})")
    for i, ratio in enumerate(bands):
        edge = 0.5 * (i + 1) / len(bands)
        table.add_row(f"power up to {edge:.2f} Nyquist", f"{ratio:.2f}  {'#' * round(20 * ratio)}")
    Console(stderr=True).print(table)


def _give(figures: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    typer.echo(json.dumps(figures))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True))
