"""`medphantom audit`: all sections on one set of images, as audit.json and audit.html."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gen.errors import InvalidInput
from jobs.bars import Bars, bars

if TYPE_CHECKING:  # torch is imported when something is measured
    from jobs.audit.schema import Audit
    from jobs.audit.sets import Inputs
    from jobs.audit.stages import Stages

CACHE = Path.home() / ".cache" / "medphantom" / "features"

Synthetic = Annotated[
    Path,
    typer.Argument(
        exists=True, help="Images to judge: a folder, or a CSV table with their prompts"
    ),
]
Real = Annotated[
    Path,
    typer.Option(
        exists=True,
        help="Real images that nothing was trained on: a folder with manifest.csv, a table with"
        " CheXGenBench's columns, or pictures alone",
    ),
]
Train = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        help="What the generator was trained on, to search for copies; without it, the rows of"
        " --real of the split `train`, or else --real itself",
    ),
]
RealSplit = Annotated[
    str | None, typer.Option(help="Rows of --real to compare with; `test` where there is one")
]
TrainSplit = Annotated[
    str | None, typer.Option(help="Rows of --train to search; `train` where there is one")
]
EncoderId = Annotated[
    str, typer.Option(help="Image encoder: id, folder of RAD-DINO and alike, or safetensors file")
]
ClassifierId = Annotated[
    str, typer.Option(help="Judge of findings, view, sex and age: id or folder")
]
ImageText = Annotated[
    str | None, typer.Option("--image-text", help="Folder of a CLIP-style model, if there is one")
]
NumPlanted = Annotated[
    int, typer.Option(min=0, help="Copies planted to see how many are found; 0: none")
]
Cache = Annotated[Path, typer.Option(help="Folder of features, kept from audit to audit")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw")]


@dataclass(frozen=True)
class AuditConfig:
    """What one audit measures. Features and finished stages are kept in `cache`."""

    synthetic: Path
    real: Path
    train: Path | None = None
    real_split: str | None = None
    train_split: str | None = None
    encoder: str = "cxr-encoder-mini"
    classifier: str = "cxr-classifier-mini"
    image_text: str | None = None
    num_planted: int = 200
    sensitivity: bool = True
    cache: Path = CACHE
    seed: int = 0


def prepare(config: AuditConfig, drawn: Bars) -> "tuple[Inputs, Stages]":
    """Read the images, and where an earlier run on the same ones has kept what it did.

    Raises:
        InvalidInput: an image set or the encoder cannot be used.
    """
    from gen.encoders.loading import load_encoder
    from jobs.audit.schema import VERSION
    from jobs.audit.sets import Source, read_inputs
    from jobs.audit.stages import Stages
    from jobs.train import revision

    encoder = load_encoder(config.encoder)
    train = None if config.train is None else Source(config.train, config.train_split)
    inputs = read_inputs(
        config.synthetic, Source(config.real, config.real_split), train,
        encoder, config.cache, drawn, config.seed,
    )  # fmt: skip
    sets = [each and each.digest for each in (inputs.synthetic, inputs.real, inputs.train)]
    key = json.dumps([VERSION, revision(), encoder.id, config.seed, *sets])
    return inputs, Stages(config.cache / "stages", key, lambda name: drawn.say(f"measuring {name}"))


def run_audit(config: AuditConfig, out: Path, drawn: Bars) -> "Audit":
    """Measure everything, or what an earlier run did not get to, and write the report.

    Raises:
        InvalidInput: see `prepare`, or a classifier or image-text model cannot be used.
    """
    from gen.metrics.alignment import load_classifier
    from jobs.audit.alignment import Judged, alignment
    from jobs.audit.copies import copies
    from jobs.audit.fairness import fairness
    from jobs.audit.fidelity import Likeness, likeness
    from jobs.audit.pictures import pictures_of, plots_of
    from jobs.audit.report import write_json, write_report
    from jobs.audit.schema import Audit, Omitted, Sensitivity, Sets
    from jobs.audit.sensitivity import sensitivity

    check_out(out)
    load_classifier(config.classifier)  # before work that a wrong name would waste
    inputs, stages = prepare(config, drawn)
    judges = config.classifier, config.image_text
    alike = stages.run("likeness", Likeness, lambda: likeness(inputs))
    judged = stages.run("alignment", Judged, lambda: alignment(inputs, *judges), *judges)
    searched = copies(inputs, stages, config.num_planted)
    harmed: Sensitivity | Omitted = Omitted(omitted="left out by --no-sensitivity")
    if config.sensitivity:
        harmed = stages.run(
            "sensitivity",
            Sensitivity | Omitted,
            lambda: sensitivity(inputs, config.classifier),
            config.classifier,
        )
    audit = Audit(
        software=software(),
        encoder=inputs.encoder.id,
        sets=Sets(
            synthetic=inputs.synthetic.describe(real=False),
            real=inputs.real.describe(real=True),
            train=inputs.train and inputs.train.describe(real=True),
        ),
        fidelity=alike.fidelity,
        diversity=alike.diversity,
        alignment=judged.alignment,
        copies=searched.copies,
        fairness=fairness(inputs, alike, judged, searched),
        sensitivity=harmed,
        omissions=inputs.omissions,
    )
    write_json(out / "audit.json", audit)
    write_report(out / "audit.html", audit, pictures_of(inputs, audit), plots_of(audit))
    return audit


def check_out(out: Path) -> None:
    """Make the folder of the report.

    Raises:
        InvalidInput: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"out is {out}, where no folder can be made ({error.strerror}); name another"
        ) from error


def software() -> str:
    """Name, version and revision."""
    from importlib.metadata import version

    from jobs.train import revision

    return f"medphantom {version('medphantom')} ({revision()})"


def _print_schema(wanted: bool) -> None:
    from jobs.audit.schema import Audit

    if wanted:
        typer.echo(json.dumps(Audit.model_json_schema(), indent=1))
        raise typer.Exit


def command(
    synthetic: Synthetic,
    real: Real,
    out: Annotated[Path, typer.Option(help="Folder for audit.json and audit.html")],
    train: Train = None,
    real_split: RealSplit = None,
    train_split: TrainSplit = None,
    encoder: EncoderId = "cxr-encoder-mini",
    classifier: ClassifierId = "cxr-classifier-mini",
    image_text: ImageText = None,
    planted: NumPlanted = 200,
    sensitivity: Annotated[
        bool, typer.Option(help="Harm real images to see which figure would notice")
    ] = True,
    cache: Cache = CACHE,
    seed: Seed = 0,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            callback=_print_schema,
            is_eager=True,
            help="Print what audit.json holds as JSON Schema, and stop",
        ),
    ] = False,
) -> None:
    """Judge synthetic images: are they faithful, diverse, as asked for, no copies, and fair?

    Every figure stands beside its floor, the same figure of real images of other patients, with a
    95 % interval. Writes audit.html for people and audit.json for programs; the same command goes
    on where it was cut off. The pages show patients' images where --train and --real hold some:
    keep OUT as you keep those.
    """  # fmt: skip
    config = AuditConfig(
        synthetic, real, train, real_split, train_split, encoder, classifier, image_text,
        planted, sensitivity, cache, seed,
    )  # fmt: skip
    from jobs.audit.report import summary

    with bars() as drawn:
        audit = run_audit(config, out, drawn)
        for line in summary(audit.as_json()):
            drawn.say(line)
        drawn.say(f"Report: {out / 'audit.html'}")
    record: dict[str, Any] = {
        "report": str(out / "audit.html"),
        "figures": str(out / "audit.json"),
        "summary": summary(audit.as_json()),
    }
    typer.echo(json.dumps(record, ensure_ascii=False))
