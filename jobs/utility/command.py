"""`medphantom evaluate utility`: does a synthetic set help a classifier of findings?"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.bars import Bars, bars
from jobs.fractions import parse_fractions
from jobs.targets import interval
from jobs.utility.arms import NAMES
from jobs.utility.classical import View
from jobs.utility.config import UtilityConfig, parse_arms

FIGURES, REPORT = "figures.json", "utility.html"


def run_utility(config: UtilityConfig, drawn: Bars, view: View | None = None) -> dict[str, Any]:
    """Measure, and write `figures.json` and `utility.html` into the folder.

    Args:
        config: what is measured.
        drawn: where progress is drawn.
        view: a classical transform other than the usual ones.

    Raises:
        InvalidInput: see `jobs.utility.sets.read_sets`, or the encoder is none.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    from gen.data.atomic import atomic_file
    from gen.data.provenance import software
    from gen.metrics.finding_figures import CONTRASTS
    from jobs.utility.figures import measure_utility
    from jobs.utility.report import write_report
    from jobs.utility.sets import read_sets

    config.out.mkdir(parents=True, exist_ok=True)
    sets = read_sets(config, drawn)
    figures = measure_utility(config, sets, drawn, view)
    figures |= {"software": software(), "contrasts": CONTRASTS, "report": str(config.out / REPORT)}
    with atomic_file(config.out / FIGURES, overwrite=True) as stream:
        stream.write((json.dumps(figures, indent=1, allow_nan=False) + "\n").encode())
    write_report(config.out / REPORT, figures, sets)
    return figures


def table_of(figures: dict[str, Any]) -> Table:
    """The macro figures for people."""
    sets = figures["sets"]
    title = (
        f"{sets['synthetic']['images']} synthetic images; judged on {sets['test']['images']} images"
        f" of {sets['test']['patients']} patients"
    )
    table = Table("share", "trained on", "macro AUROC", "less real only", title=title)
    for result in figures["results"]:
        for arm, found in result["arms"].items():
            gap = result["gaps"].get(f"{arm} - real")
            less = interval(gap["macro"]["auroc"]) if gap else ""
            share = f"{result['fraction']:g}"
            table.add_row(share, NAMES[arm], interval(found["macro"]["auroc"]), less)
        table.add_section()
    return table


def utility(
    synthetic: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="Synthetic set: a folder of shards, one with metadata.jsonl, or a table with"
            " labels or prompts",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            exists=True, help="Real images with labels and the splits train, val and test"
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the figures and report")],
    arm: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeat for several; of {', '.join(NAMES)}; all but one unless named"),
    ] = None,
    fractions: Annotated[str, typer.Option(help="Shares of the real patients")] = "0.05,0.2,1",
    seeds: Annotated[int, typer.Option(min=2, help="Classifiers of each kind")] = 5,
    image_size: Annotated[
        int, typer.Option(min=16, help="Side in pixels of what a classifier sees")
    ] = 64,
    training_steps: Annotated[
        int, typer.Option(min=2, help="Optimizer steps, the same for all")
    ] = 300,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder to start from, as cxr-encoder-mini; otherwise from scratch"),
    ] = None,
    synthetic_share: Annotated[
        float, typer.Option(help="Of a batch, where real and synthetic are mixed")
    ] = 0.5,
    pretraining_share: Annotated[
        float, typer.Option(help="Of the steps, where synthetic comes first")
    ] = 0.5,
    views: Annotated[int, typer.Option(min=1, help="Classical views of each real image")] = 2,
    min_positives: Annotated[
        int, typer.Option(min=2, help="Test patients with a class, and without, to judge it")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws")] = 0,
) -> None:
    """Whether a synthetic set makes a better classifier of findings, and for whom.

    A small network is trained on shares of the real patients: on their images alone, transformed
    as usual (never flipped), mixed with synthetic images, or after training on synthetic images
    first; and on synthetic images only. All are trained for as many steps with the same seeds and
    judged on the same images, those of the split `test`; thresholds are chosen on `val`. Labels
    that a collection does not speak of cost nothing and count nowhere.

    What counts is the gap to real images only, and to what transforms reach, which cost nothing.
    An interval around zero means that these images cannot tell. Run it again to go on where it
    stopped: what classifiers said stays in --out.

    Example:

    medphantom evaluate utility synthetic/ --data DIR --out utility
    """
    config = UtilityConfig(
        data, synthetic, out, parse_arms(arm or ()), parse_fractions(fractions), seeds,
        image_size, training_steps, encoder=encoder, synthetic_share=synthetic_share, seed=seed,
        pretraining_share=pretraining_share, num_views=views, min_positives=min_positives,
    )  # fmt: skip
    with bars() as drawn:
        figures = run_utility(config, drawn)
    from jobs.utility.report import summary

    console = Console(stderr=True)
    console.print(table_of(figures))
    for line in summary(figures):
        console.print(line, markup=False, highlight=False)
    for line in figures["omissions"]:
        console.print(f"left out or assumed: {line}", markup=False, highlight=False)
    console.print(f"report: {out / REPORT}", markup=False, highlight=False, soft_wrap=True)
    typer.echo(json.dumps(figures))
