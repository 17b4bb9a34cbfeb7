"""`medphantom train minority-calibration`: how strong each sampler must be for which level."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gen.data.minority_table import read_minority_scores
from gen.errors import InvalidInput
from gen.guidance.minority import (
    ALL,
    METHODS,
    MinorityCalibration,
    MinorityMethod,
    ScoreSettings,
    calibration_in,
    check_method,
)
from jobs.bars import Bars, bars
from jobs.device import Precision, autocast
from jobs.minority_subjects import OTHER, Drawer, draws_tissue
from jobs.targets import Data, MixedPrecision, Model, Seed, give

NUM_QUANTILES = 21  # kept of the training data's scores
# what is tried of each method: from the least to the strongest that leaves images whole
STRENGTHS: dict[MinorityMethod, tuple[float, ...]] = {
    "boost_and_skip": (0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
    "classifier": (-4.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0),
    "self_guided": (-0.3, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0),
    "prompt": (0.0, 0.01, 0.05, 0.2),
}
# the same of patches of tissue
TISSUE_STRENGTHS: dict[MinorityMethod, tuple[float, ...]] = {
    "boost_and_skip": (1.0, 1.2, 1.5),
    "classifier": (-4.0, 0.0, 4.0, 16.0),
    "self_guided": (0.0, 0.5, 1.0, 1.5),
}
# levels of a method that are closer than this differ by chance: it moves nothing, and is left out
LEAST_RANGE = 0.05


@dataclass(frozen=True)
class CalibrationConfig:
    """What is calibrated, on what is drawn; `scores` is a table of `train minority-scores`.

    `n` images are drawn for prompts of the split, or of tissue, from embeddings of its crops.
    `guidance_scale` None is the pipeline's own.
    """

    data: Path
    scores: Path
    model: str
    methods: tuple[MinorityMethod, ...] = METHODS
    split: str = "val"
    n: int = 64
    seed: int = 0
    num_inference_steps: int = 25
    guidance_scale: float | None = None
    mixed_precision: Precision = Precision.NO


def kept_scores(table: Path) -> dict[str, tuple[float, ...]]:
    """Of each kind and of all, the scores at `NUM_QUANTILES` quantiles from 0 to 1.

    Raises:
        InvalidInput: the table is none of `medphantom train minority-scores`.
    """
    import numpy as np

    rows = read_minority_scores(table)
    levels = np.linspace(0, 1, NUM_QUANTILES)
    kinds = {row.group for row in rows} - {OTHER}
    of = {kind: [row.score for row in rows if row.group == kind] for kind in sorted(kinds)}
    of[ALL] = [row.score for row in rows]
    return {kind: tuple(np.quantile(each, levels).tolist()) for kind, each in of.items()}


def rising(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """(level, strength) of rising strengths; where a level falls back, the rest is left out."""
    kept = [pairs[0]]
    for level, strength in pairs[1:]:
        if level <= kept[-1][0]:
            break
        kept.append((level, strength))
    return tuple(kept)


def drawer_of(config: CalibrationConfig, score: ScoreSettings, figures: dict[str, Any]) -> Drawer:
    """What draws images as the model is asked for them."""
    if draws_tissue(config.model):
        from jobs.minority_tissue import TissueDrawer, cutting_of

        return TissueDrawer(config, cutting_of(config.scores, figures))
    from jobs.minority_chests import ChestDrawer

    return ChestDrawer(config, score)


def calibrate(config: CalibrationConfig, drawn: Bars) -> dict[str, Any]:
    """Draw with each method at several strengths, score what came out, and keep it in the card.

    Raises:
        InvalidInput: the model has no card or too little is left to draw, or the table is of
            another model or none.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    from gen.store.card import read_card, write_card
    from gen.store.catalogue import resolve

    folder = resolve(config.model).path
    card = read_card(folder)
    if card is None:
        raise InvalidInput(
            f"model is {config.model!r}, which has no card to keep the calibration in; medphantom"
            " train writes one, for other models gen.store.card.write_card does"
        )
    figures = read_figures(config.scores)
    score = ScoreSettings.model_validate(
        {name: figures[name] for name in ScoreSettings.model_fields}
    )
    drawer = drawer_of(config, score, figures)
    calibration = MinorityCalibration(score=score, scores=kept_scores(config.scores), strengths={})
    tried = TISSUE_STRENGTHS if draws_tissue(config.model) else STRENGTHS
    strengths = measure(drawer, calibration, config, tried, drawn)
    before = calibration_in(card.calibration)
    if before is not None and before.score == score:
        others = before.strengths.items()
        strengths |= {name: pairs for name, pairs in others if name not in config.methods}
    calibration = calibration.model_copy(update={"strengths": strengths})
    kept = {**card.calibration, "minority": calibration.model_dump(mode="json")}
    fields = card.model_dump(exclude={"weights", "calibration"})
    write_card(folder, **fields, calibration=kept)
    return {"model": config.model, **kept["minority"], "omissions": []}


def measure(
    drawer: Drawer,
    calibration: MinorityCalibration,
    config: CalibrationConfig,
    tried: Mapping[MinorityMethod, Sequence[float]],
    drawn: Bars,
) -> dict[MinorityMethod, tuple[tuple[float, float], ...]]:
    """(level, strength) of the strengths that are tried, of each method that the model has."""
    import torch

    from pipelines.minority import MinoritySampling

    methods = [
        method
        for method in config.methods
        if method in tried and (method != "classifier" or drawer.has_classifier)
    ]
    report, total = drawn.bar("drawing"), drawer.num_images * sum(len(tried[m]) for m in methods)
    done = 0
    strengths = {}
    for method in methods:
        pairs = []
        for strength in tried[method]:
            sampling = MinoritySampling(method, strength, distance=calibration.score.distance)
            with autocast(config.mixed_precision):
                levels = drawer.levels(calibration, sampling)
            done += drawer.num_images
            report(done, total)
            pairs.append((float(torch.tensor(levels).median()), strength))
            drawn.say(
                f"{method} {strength:g}: half of the images are rarer than {pairs[-1][0]:.2f}"
            )
        kept = rising(pairs)
        if kept[-1][0] - kept[0][0] >= LEAST_RANGE:
            strengths[method] = kept
        else:
            drawn.say(f"{method} is left out: its strength hardly moves the level of this model")
    return strengths


def read_figures(table: Path) -> dict[str, Any]:
    """What the scores of a table depend on, from the figures beside it.

    Raises:
        InvalidInput: there are none.
    """
    try:
        figures: dict[str, Any] = json.loads(table.with_suffix(".json").read_text())
        ScoreSettings.model_validate({name: figures[name] for name in ScoreSettings.model_fields})
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"scores is {table}, beside which no .json says how they were made: {error!r}; make"
            " both with medphantom train minority-scores"
        ) from error
    return figures


def command(
    data: Data,
    scores: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Table of train minority-scores")
    ],
    model: Model,
    split: Annotated[
        str, typer.Option(help="Of the prompts, or the tiles, that are drawn from")
    ] = "val",
    n: Annotated[int, typer.Option("--n", "-n", min=8, help="Images of each strength")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps")] = 25,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1.5, or of tissue 1")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="One to calibrate, may be given again; else all, the others stay"),
    ] = None,
    seed: Seed = 0,
    mixed_precision: MixedPrecision = Precision.NO,
) -> None:
    """Find how strong each minority method must be for which level, and note it in the card.

    Images are drawn at several strengths of each method and scored as the training images were:
    the level that half of them exceed is what the strength reaches. From then on a level such as
    0.9 means the same whatever the method.
    """
    config = CalibrationConfig(
        data, scores, model, tuple(check_method(each) for each in method or METHODS),
        split=split, n=n, seed=seed,
        num_inference_steps=steps, guidance_scale=guidance, mixed_precision=mixed_precision,
    )  # fmt: skip
    with bars() as drawn:
        figures = calibrate(config, drawn)
    table = Table("method", "levels", "strengths", title=model)
    for name, pairs in figures["strengths"].items():
        levels, strengths = zip(*pairs, strict=True)
        table.add_row(
            name, f"{levels[0]:.2f} to {levels[-1]:.2f}", f"{strengths[0]:g} to {strengths[-1]:g}"
        )
    give(table, figures, None)
