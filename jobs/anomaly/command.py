"""`medphantom anomaly`: where a scan departs from healthy anatomy, and from which value on."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gen.anomaly.calibration import HEALTHY_PROMPT, check_anomaly_method
from gen.errors import InvalidInput
from jobs.anomaly import calibration
from jobs.anomaly.files import parse_formats
from jobs.anomaly.mapper import MapsConfig
from jobs.anomaly.maps import Summary, run_maps
from jobs.bars import bars
from jobs.default_command import DefaultCommand
from jobs.device import Precision
from jobs.targets import MixedPrecision, Model

FAILED = 1

commands = typer.Typer(
    cls=DefaultCommand,
    no_args_is_help=True,
    help="Map where scans depart from healthy anatomy.\n\n"
    "medphantom anomaly PATH... maps files and folders: PNG, JPEG, DICOM, NIfTI. All its options: "
    "medphantom anomaly map --help\n\n"
    "medphantom anomaly xray.png folder --out maps\n\n"
    "medphantom anomaly --pacs NAME --study UID --out maps\n\n"
    "medphantom anomaly calibrate --data DIR finds the thresholds of another model.",
)


@commands.command("map")
def map_scans(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Scans, and folders of them")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("anomaly"),
    method: Annotated[
        str, typer.Option(help="autopaint, patchwise, autoddpm, thor or single_step")
    ] = "autopaint",
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Mark what exceeds it, instead of --threshold-fpr")
    ] = None,
    threshold_fpr: Annotated[
        float, typer.Option(help="Share of healthy pictures in which anything may be marked")
    ] = 0.05,
    model: Model = "cxr-mini",
    prompt: Annotated[
        str, typer.Option(help="What healthy looks like, in the model's words")
    ] = HEALTHY_PROMPT,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all noise")] = 0,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Some of npy, png, dicom-seg, dicom-overlay, nifti; all that suit a source",
        ),
    ] = None,
    pacs: Annotated[
        str | None, typer.Option(help="Name in MEDPHANTOM_PACS, or URL, of a DICOMweb service")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Study instance UID in the PACS")] = None,
    series: Annotated[str | None, typer.Option(help="Series instance UID in the study")] = None,
    modality: Annotated[str | None, typer.Option(help="In the PACS, such as CR")] = None,
    study_date: Annotated[
        str | None, typer.Option(help="In the PACS: YYYYMMDD, or YYYYMMDD-YYYYMMDD")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures of the PACS, at most")] = None,
    store: Annotated[
        bool | None,
        typer.Option("--store/--no-store", help="Store results in the PACS; as it is configured"),
    ] = None,
    mixed_precision: MixedPrecision = Precision.NO,
    overwrite: Annotated[bool, typer.Option(help="Replace results of other settings")] = False,
    allow_download: Annotated[bool, typer.Option(help="Fetch a hub model not at hand")] = False,
) -> None:
    """Map where scans depart from healthy anatomy: by what a model of healthy ones would paint.

    Beside each map (<stem>.npy, float32 on the source's pixels) there are a heat overlay and the
    scan as it would be healthy, for DICOM a segmentation and a secondary capture, for NIfTI a
    volume. A scan that is finished is not mapped again. Not for diagnosis.

    Examples:

    medphantom anomaly xray.png folder --out maps

    medphantom anomaly scan.dcm --method single_step --threshold-fpr 0.1 --out maps

    medphantom anomaly --pacs archive --study 1.2.840.1 --store --out maps

    medphantom anomaly calibrate --data DIR --model runs/cxr/model
    """
    config = MapsConfig(
        out, check_anomaly_method(method), threshold, threshold_fpr, model, prompt, seed,
        parse_formats(file_format), mixed_precision, overwrite, allow_download,
    )  # fmt: skip
    conditions = {
        "study_instance_uid": study,
        "series_instance_uid": series,
        "modality": modality,
        "study_date": study_date,
        "limit": limit,
    }
    if (pacs is None) == (not paths):
        raise InvalidInput("give either PATH... or --pacs NAME with --study UID")
    if pacs is None and (store is not None or any(conditions.values())):
        raise InvalidInput(
            "study, series, modality, study-date, limit and store are of a PACS; name it by --pacs"
        )
    with bars() as drawn:
        if pacs is None:
            summary = run_maps(config, paths or [], _print, drawn)
        else:
            summary = _map_pacs(config, pacs, conditions, store, drawn)
    Console(stderr=True).print(
        f"{summary.mapped} mapped into [bold]{out}[/bold], {summary.finished} were finished before,"
        f" {summary.failed} failed. Not for diagnosis."
    )
    if summary.failed:
        raise typer.Exit(FAILED)


def _map_pacs(
    config: MapsConfig, name: str, conditions: dict[str, Any], store: bool | None, drawn: Any
) -> Summary:
    from jobs.anomaly.pacs import Search, run_pacs
    from jobs.pacs.connection import open_pacs
    from jobs.settings import Settings

    pacs = open_pacs(name, Settings().pacs)
    wanted = pacs.store_results if store is None else store
    return run_pacs(config, pacs, Search(**conditions), wanted, _print, drawn)


def _print(row: dict[str, Any]) -> None:
    typer.echo(json.dumps(row))


commands.command("calibrate")(calibration.command)
