"""`medphantom train minority-calibration`: how strong each sampler must be for which level."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.data.minority_table import read_minority_scores
from gen.errors import InvalidInput
from gen.guidance.minority import (
    ALL,
    METHODS,
    MinorityCalibration,
    MinorityMethod,
    calibration_in,
    check_method,
)
from jobs.bars import Bars, bars
from jobs.device import Precision, autocast
from jobs.minority_scores import OTHER
from jobs.targets import Data, MixedPrecision, Model, Seed, give, shuffled

if TYPE_CHECKING:  # torch is imported when something is drawn
    from pipelines.minority import MinoritySampling
    from pipelines.text_to_cxr import TextToCXRPipeline

NUM_QUANTILES = 21  # kept of the training data's scores
# what is tried of each method: from the least to the strongest that leaves images whole
STRENGTHS: dict[MinorityMethod, tuple[float, ...]] = {
    "boost_and_skip": (0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
    "classifier": (-4.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0),
    "self_guided": (-0.3, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0),
    "prompt": (0.0, 0.01, 0.05, 0.2),
}


@dataclass(frozen=True)
class CalibrationConfig:
    """What is calibrated, on which prompts; `scores` is a table of `train minority-scores`."""

    data: Path
    scores: Path
    model: str
    methods: tuple[MinorityMethod, ...] = METHODS
    split: str = "val"
    n: int = 64
    seed: int = 0
    num_inference_steps: int = 25
    guidance_scale: float = 1.5
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


def calibrate(config: CalibrationConfig, drawn: Bars) -> dict[str, Any]:
    """Draw with each method at several strengths, score what came out, and keep it in the card.

    Raises:
        InvalidInput: the model has no card or no prompts are left, or the table is of another model
            or none.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    import torch

    from gen.data.collection import read_collection
    from gen.encoders.loading import load_encoder
    from gen.guidance.minority import ScoreSettings
    from gen.store.card import read_card, write_card
    from gen.store.catalogue import resolve
    from pipelines.minority import MinoritySampling
    from pipelines.text_to_cxr import TextToCXRPipeline

    folder = resolve(config.model).path
    card = read_card(folder)
    if card is None:
        raise InvalidInput(
            f"model is {config.model!r}, which has no card to keep the calibration in; write one"
            " with gen.store.card.write_card"
        )
    settings = read_settings(config.scores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = TextToCXRPipeline.from_pretrained(config.model, torch_dtype=torch.float32)
    pipeline.to(device)
    score = ScoreSettings.model_validate(settings)
    encoder = load_encoder(score.encoder, device).embed if score.encoder else None
    prompts = draw_prompts(read_collection(config.data, config.split).items, config)
    calibration = MinorityCalibration(score=score, scores=kept_scores(config.scores), strengths={})
    methods = [
        each
        for each in config.methods
        if each != "classifier" or pipeline.minority_classifier is not None
    ]
    report, total = drawn.bar("drawing"), len(prompts) * sum(len(STRENGTHS[m]) for m in methods)
    done = 0
    strengths = {}
    for method in methods:
        pairs = []
        for strength in STRENGTHS[method]:
            sampling = MinoritySampling(method, strength, distance=score.distance)
            with autocast(config.mixed_precision):
                levels = reached(pipeline, encoder, calibration, prompts, sampling, config)
            done += len(prompts)
            report(done, total)
            pairs.append((float(torch.tensor(levels).median()), strength))
            drawn.say(
                f"{method} {strength:g}: half of the images are rarer than {pairs[-1][0]:.2f}"
            )
        strengths[method] = rising(pairs)
    before = calibration_in(card.calibration)
    if before is not None and before.score == score:  # of the methods that were not asked for
        strengths = before.strengths | strengths
    calibration = calibration.model_copy(update={"strengths": strengths})
    kept = {**card.calibration, "minority": calibration.model_dump(mode="json")}
    fields = card.model_dump(exclude={"weights", "calibration"})
    write_card(folder, **fields, calibration=kept)
    return {"model": config.model, **kept["minority"], "omissions": []}


def read_settings(table: Path) -> dict[str, Any]:
    """What the scores of a table depend on, from the figures beside it.

    Raises:
        InvalidInput: there are none.
    """
    names = ("distance", "encoder", "noise_level", "num_draws")
    try:
        figures = json.loads(table.with_suffix(".json").read_text())
        return {name: figures[name] for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"scores is {table}, beside which no .json says how they were made: {error!r}; make"
            " both with medphantom train minority-scores"
        ) from error


def draw_prompts(items: Sequence[Any], config: CalibrationConfig) -> list[str]:
    """Prompts of a split, in a drawn order.

    Raises:
        InvalidInput: there are fewer.
    """
    import numpy as np

    prompts = [each.prompt for each in items if each.prompt]
    if len(prompts) < config.n:
        raise InvalidInput(
            f"n is {config.n}, but split {config.split!r} has only {len(prompts)} prompts; lower n"
        )
    return shuffled(prompts, np.random.default_rng(config.seed))[: config.n]


def reached(
    pipeline: "TextToCXRPipeline",
    encoder: Any,
    calibration: MinorityCalibration,
    prompts: list[str],
    sampling: "MinoritySampling | None",
    config: CalibrationConfig,
    batch_size: int = 8,
) -> list[float]:
    """The level of each image that is drawn, a prompt and a seed each."""
    from gen.denoising import make_generators
    from gen.engine import run
    from pipelines.rarity import levels_reached

    networks = {**pipeline.networks, **({} if encoder is None else {"embedder": encoder})}
    levels: list[float] = []
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        seeds = range(config.seed + start, config.seed + start + len(some))
        drawn = pipeline.process(
            some,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=make_generators(seeds),
            minority=sampling,
            decode=False,
        )
        latents = run(drawn, networks)
        levels += run(levels_reached(pipeline, calibration, latents, some, seeds), networks)
    return levels


def command(
    data: Data,
    scores: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Table of train minority-scores")
    ],
    model: Model,
    split: Annotated[str, typer.Option(help="Rows whose prompts are drawn from")] = "val",
    n: Annotated[int, typer.Option("--n", "-n", min=8, help="Images of each strength")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps")] = 25,
    guidance: Annotated[float, typer.Option(help="Guidance scale")] = 1.5,
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
