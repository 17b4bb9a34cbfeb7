"""`medphantom evaluate`: the parts of an audit alone, what a model betrays, and prompts to try."""

import csv
import json
import random
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gen.errors import InvalidInput
from jobs import evaluate_anomaly, evaluate_large, membership, rarity, reidentification, variations
from jobs.audit.command import (
    CACHE,
    AuditConfig,
    Cache,
    ClassifierId,
    EncoderId,
    ImageText,
    NumPlanted,
    Seed,
    Synthetic,
    Train,
    TrainSplit,
    prepare,
)
from jobs.bars import bars
from jobs.utility.command import utility

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.data.captions import Labels
    from jobs.audit.sets import Inputs
    from jobs.audit.stages import Stages

commands = typer.Typer(
    no_args_is_help=True, help="Measure synthetic images against real ones, beside a real floor."
)

commands.command("anomaly")(evaluate_anomaly.command)
commands.command("large")(evaluate_large.command)
commands.command("membership")(membership.membership)
commands.command("rarity")(rarity.command)
commands.command("reidentification")(reidentification.reidentification)
commands.command("utility")(utility)
commands.command("variations")(variations.variations)


class Population(StrEnum):
    """Whose radiographs."""

    ALL = "all"
    CHILDREN = "children"
    ADULTS = "adults"

    def holds(self, labels: "Labels") -> bool:
        """Whether a radiograph with these labels belongs to it."""
        return self is Population.ALL or labels.child == (self is Population.CHILDREN)


Real = Annotated[
    Path,
    typer.Option(
        "--real",
        "--data",
        exists=True,
        help="Real images that nothing was trained on: a folder with manifest.csv, or a table",
    ),
]
RealSplit = Annotated[
    str | None,
    typer.Option(
        "--real-split", "--split", help="Rows of --real to compare with; `test` if there is one"
    ),
]
Out = Annotated[Path | None, typer.Option(help="Also write the figures to this file")]


def measure(
    config: AuditConfig, part: "Callable[[Inputs, Stages], dict[str, Any]]", out: Path | None
) -> None:
    """Print one part of an audit as JSON, with the sets it is from and what was left out."""
    with bars() as drawn:
        inputs, stages = prepare(config, drawn)
        figures = {
            "encoder": inputs.encoder.id,
            "synthetic": len(inputs.synthetic),
            "real": len(inputs.real),
            **part(inputs, stages),
            "omissions": inputs.omissions,
        }
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    typer.echo(json.dumps(figures))


@commands.command()
def fidelity(
    synthetic: Synthetic,
    real: Real,
    encoder: EncoderId = "cxr-encoder-mini",
    real_split: RealSplit = None,
    out: Out = None,
    cache: Cache = CACHE,
    seed: Seed = 0,
) -> None:
    """How close synthetic images come to real ones, and how much they differ among themselves.

    Fréchet and kernel distance, precision, recall, density and coverage, feature spread, Vendi
    score and MS-SSIM: of all images and of every group, each beside the same figure of real images
    of other patients; and the power spectrum up to half the Nyquist frequency: 1.0 is as much
    detail as real images hold, below 0.5 is blur.
    """

    def part(inputs: "Inputs", stages: "Stages") -> dict[str, Any]:
        from jobs.audit.fidelity import Likeness, likeness

        found = stages.run("likeness", Likeness, lambda: likeness(inputs))
        sections = found.model_dump(mode="json", by_alias=True)
        return {name: sections[name] for name in ("fidelity", "diversity")}

    config = AuditConfig(
        synthetic, real, real_split=real_split, encoder=encoder, cache=cache, seed=seed
    )
    measure(config, part, out)


@commands.command()
def alignment(
    synthetic: Synthetic,
    real: Real,
    classifier: ClassifierId = "cxr-classifier-mini",
    image_text: ImageText = None,
    encoder: EncoderId = "cxr-encoder-mini",
    real_split: RealSplit = None,
    out: Out = None,
    cache: Cache = CACHE,
    seed: Seed = 0,
) -> None:
    """Whether synthetic images show what their prompts asked for.

    A classifier trained on real images judges every finding, view, sex and age among children and
    among adults; its AUROC on real images stands beside its AUROC on synthetic ones. High figures
    say that the prompt is followed, not that the images are good: look at them, and at
    `evaluate fidelity`.
    """

    def part(inputs: "Inputs", stages: "Stages") -> dict[str, Any]:
        from jobs.audit.alignment import Judged
        from jobs.audit.alignment import alignment as judge

        judges = classifier, image_text
        found = stages.run("alignment", Judged, lambda: judge(inputs, *judges), *judges)
        return {"alignment": found.alignment.model_dump(mode="json")}

    config = AuditConfig(
        synthetic, real, real_split=real_split, encoder=encoder, cache=cache, seed=seed
    )
    measure(config, part, out)


@commands.command()
def copies(
    synthetic: Synthetic,
    real: Real,
    train: Train = None,
    planted: NumPlanted = 200,
    encoder: EncoderId = "cxr-encoder-mini",
    real_split: RealSplit = None,
    train_split: TrainSplit = None,
    out: Out = None,
    cache: Cache = CACHE,
    seed: Seed = 0,
) -> None:
    """Which synthetic images are suspiciously near a training image.

    By features and by aligned pixels, against a threshold that real images of other patients set;
    copies made for the purpose are slipped in to see how many would be found. No finding is no
    proof of privacy.
    """

    def part(inputs: "Inputs", stages: "Stages") -> dict[str, Any]:
        from jobs.audit.copies import copies as search

        return {"copies": search(inputs, stages, planted).copies.model_dump(mode="json")}

    config = AuditConfig(
        synthetic, real, train=train, real_split=real_split, train_split=train_split,
        encoder=encoder, cache=cache, seed=seed,
    )  # fmt: skip
    measure(config, part, out)


@commands.command()
def prompts(
    data: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, help="Real images: folder with manifest.csv"),
    ],
    out: Annotated[Path, typer.Option(help="CSV file to write, for `generate --prompts`")],
    split: Annotated[str, typer.Option(help="Rows of the manifest")] = "test",
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
