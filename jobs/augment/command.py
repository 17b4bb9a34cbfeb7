"""`medphantom augment`: plan, run, report, export."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.augment.plan import Cost, How, Plan, PlanConfig, make_plan, rows_file, timed, write_plan
from jobs.augment.planning import Target
from jobs.bars import bars
from jobs.device import Precision
from jobs.exports.formats import ExportFormat
from jobs.runner.command import run
from jobs.targets import MixedPrecision

commands = typer.Typer(
    no_args_is_help=True,
    help="Training sets that grow: what is lacking, made, judged, and written as you need it.\n\n"
    "medphantom augment plan --data DIR --minimum 200 --below 60 --spec rare.yaml --out rare\n\n"
    "medphantom augment run rare.yaml\n\n"
    "medphantom augment export rare --format imagefolder --out rare-images",
)
commands.command("run")(run)


@commands.command()
def plan(
    data: Annotated[Path, typer.Option(help="Real images with labels: folder or table")],
    spec: Annotated[Path, typer.Option(help="New file for the job's spec; rows go beside it")],
    out: Annotated[Path, typer.Option(help="Folder that the job will write")],
    minimum: Annotated[
        int | None, typer.Option(min=1, help="Images of every class, at least")
    ] = None,
    below: Annotated[
        int | None, typer.Option(min=1, help="Raise only classes with fewer images")
    ] = None,
    equal: Annotated[bool, typer.Option(help="Every class as large as the largest")] = False,
    factor: Annotated[
        float | None, typer.Option(help="Times the images that each class has")
    ] = None,
    how: Annotated[
        How, typer.Option(help="synthesise: from words; vary: from real images; both in turns")
    ] = How.SYNTHESISE,
    minority: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="How rare: 0.9 as the rarest tenth")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far variations go, above 0 to 1; 0.5 if not given")
    ] = None,
    split: Annotated[str, typer.Option(help="Rows that are counted and followed")] = "train",
    model: Annotated[str, typer.Option(help="Id, folder, hub id or checkpoint")] = "cxr-mini",
    steps: Annotated[int, typer.Option(min=1, max=200, help="Solver steps")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that is drawn")] = 0,
    gates: Annotated[bool, typer.Option(help="Judge what is made by the same data")] = True,
    mixed_precision: MixedPrecision = Precision.NO,
    time_it: Annotated[
        bool, typer.Option("--time/--no-time", help="Make a few images to say how long it takes")
    ] = True,
) -> None:
    """Say how many images of what a data set lacks, what it costs, and write the job's spec."""
    config = PlanConfig(
        data=data,
        target=Target(equal=equal, minimum=minimum, factor=factor, below=below),
        spec=spec,
        out=out,
        split=split or None,
        how=how,
        model=model,
        minority=minority,
        strength=strength,
        num_inference_steps=steps,
        seed=seed,
        gates=gates,
        mixed_precision=mixed_precision,
    )
    made = make_plan(config)
    cost = timed(made) if time_it else None
    write_plan(made, spec)
    _show(made, cost, spec)
    typer.echo(json.dumps(_record(made, cost, spec)))


def _record(made: Plan, cost: Cost | None, spec: Path) -> dict[str, Any]:
    count = len(made.rows)
    return {
        "spec": str(spec),
        "rows": str(rows_file(spec)),
        "items": count,
        "before": made.before,
        "after": made.after,
        "seconds": cost and round(cost.seconds * count, 1),
        "bytes": cost and round(cost.num_bytes * count),
    }


def _show(made: Plan, cost: Cost | None, spec: Path) -> None:
    console = Console(stderr=True, highlight=False)
    table = Table("class", "real", "to make", "then")
    for name, before in made.before.items():
        after = made.after[name]
        table.add_row(name, str(before), str(after - before or "-"), str(after))
    console.print(table)
    console.print(f"{len(made.rows)} images; one of several findings counts for each")
    for note in made.notes:
        console.print(f"left out or assumed: {note}", markup=False)
    if cost is not None:
        minutes, size = cost.seconds * len(made.rows) / 60, cost.num_bytes * len(made.rows) / 2**20
        console.print(
            f"about {minutes:.1f} minutes of one worker here and {size:.0f} MiB;"
            " more where gates refuse and images are made again"
        )
    console.print(f"run it: medphantom augment run {spec}", markup=False)


@commands.command()
def report(
    out: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a job")],
) -> None:
    """Write report.html of a job anew: what was kept and refused, by class and group."""
    from jobs.gates.report import PAGE, summary, write_report

    found = write_report(out)
    console = Console(stderr=True, highlight=False)
    for line in summary(found):
        console.print(line, markup=False)
    console.print(f"look at {out / PAGE}", markup=False)
    typer.echo(json.dumps({"page": str(out / PAGE), "quality": found and found.model_dump()}))


@commands.command()
def export(
    source: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a job")],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="What to write")],
    out: Annotated[Path, typer.Option(help="New folder")],
) -> None:
    """Write a job's results as the format that your training reads.

    imagefolder and parquet for Hugging Face datasets, webdataset, monai (a datalist), nnunet and
    coco for what has masks, dicom.
    """
    from jobs.exports.export import export as write_export

    with bars() as drawn:
        count = write_export(source, out, file_format, drawn.bar("exporting"))
    Console(stderr=True, highlight=False).print(f"{count} images in {out}", markup=False)
    typer.echo(json.dumps({"out": str(out), "format": file_format.value, "samples": count}))
