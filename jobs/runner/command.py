"""`medphantom jobs`: data set jobs, at the desk or on a Ray cluster."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gen.errors import NotFound

commands = typer.Typer(no_args_is_help=True, help="Make data sets of a manifest, row by row.")

FAILED = 1  # some items could not be made


@commands.command()
def run(
    spec: Annotated[Path, typer.Argument(help="JSON or YAML: task, model, manifest, out, ...")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results, if not the spec's")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes with a model each; 0 works here, without Ray"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each worker on a CPU")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster whose hosts all see the folders", envvar="RAY_ADDRESS"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option(help="Make shards again in which items failed")
    ] = False,
) -> None:
    """Make what a spec asks for; run again, it goes on where it stopped.

    The folder gets shards of WebDataset in shards/, errors.jsonl with a reason for each row that
    failed, and report.json, which is printed, too. Ctrl-C loses no more than the shards under way.

    Examples:

    medphantom jobs run job.yaml

    medphantom jobs run job.yaml --workers 2 --threads 1

    ray job submit -- medphantom jobs run job.yaml --address auto
    """
    from jobs.runner.runner import Crew, run_job
    from jobs.runner.spec import read_spec

    job, crew = read_spec(spec, out), Crew(workers, threads, address)
    try:
        report = run_job(job, crew=crew, retry_failed=retry_failed)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on", highlight=False)
        raise typer.Exit(130) from None
    console = Console(stderr=True, highlight=False)
    console.print(f"{report['made']} made, {report['failed']} failed: {job.out}")
    typer.echo(json.dumps(report))
    if report["failed"]:
        console.print("why they failed is in errors.jsonl")
        raise typer.Exit(FAILED)


@commands.command()
def status(
    out: Annotated[Path, typer.Argument(help="Folder of a job", exists=True, file_okay=False)],
) -> None:
    """How far a job has come, as JSON; of a running one, too."""
    from jobs.runner.progress import under_way
    from jobs.runner.report import status as figures_of
    from jobs.runner.spec import read_job

    job = read_job(out)
    if job is None:
        raise NotFound(f"{out} holds no job yet; start one with medphantom jobs run SPEC")
    figures = figures_of(out, job)
    made, failed = under_way(out)
    figures["under_way"] = made + failed
    Console(stderr=True, highlight=False).print(
        f"{figures['made']} made and {figures['failed']} failed of {figures['items']};"
        f" {figures['shards_done']} of {figures['shards']} shards are done"
    )
    typer.echo(json.dumps(figures))
