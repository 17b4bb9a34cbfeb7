"""`medphantom anomaly calibrate`: from which value on a map shows more than healthy people do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.anomaly.calibration import (
    HEALTHY_PROMPT,
    METHODS,
    SUSPICIOUS,
    AnomalyCalibration,
    MethodName,
    OperatingPoints,
    calibration_in,
    check_anomaly_method,
    operating_points,
)
from gen.errors import InvalidInput, MedphantomError
from jobs.bars import Bars, bars
from jobs.device import Precision, precise
from jobs.targets import Data, MixedPrecision, Model, Pictures, Seed, give, seed_of, shuffled
from jobs.window import windowed

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.collection import Item
    from gen.data.model_square import ModelSquare
    from gen.types import Process, T
    from pipelines.anomaly import AnomalyPipeline


@dataclass(frozen=True)
class CalibrationConfig:
    """What is calibrated, on at most `n` healthy pictures of a split."""

    data: Path
    model: str
    methods: tuple[MethodName, ...] = METHODS
    split: str | None = "val"
    n: int = 200
    prompt: str = HEALTHY_PROMPT
    seed: int = 0
    mixed_precision: Precision = Precision.NO


@dataclass(frozen=True)
class Healthy:
    """A picture fitted to the model's square, (S, S) in [0, 1], and the seed of its noise."""

    square: "ModelSquare"
    fitted: "NDArray[np.float32]"
    seed: int


def calibrate(config: CalibrationConfig, drawn: Bars) -> dict[str, Any]:
    """Map healthy pictures with each method, and keep in the model's card what they reach.

    Raises:
        InvalidInput: the model has no card, too few pictures are healthy, or thresholds of other
            methods would stay that are of another prompt.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    import torch

    from gen.store.card import read_card, write_card
    from gen.store.catalogue import resolve
    from pipelines.anomaly import AnomalyPipeline

    folder = resolve(config.model).path
    card = read_card(folder) if folder.is_dir() else None
    if card is None:
        raise InvalidInput(
            f"model is {config.model!r}, which has no card to keep thresholds in; medphantom train"
            " writes one, for other models gen.store.card.write_card does"
        )
    stay = kept(calibration_in(card.calibration), config)
    pipeline = AnomalyPipeline.from_pretrained(config.model, torch_dtype=torch.float32)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pictures = Pictures(pipeline.size)
    healthy = read_healthy(config, pictures)
    found = {
        method: method_points(pipeline, method, healthy, config, drawn) for method in config.methods
    }
    sources = [f"{len(healthy)} healthy pictures of {config.data.name}, split {config.split}"]
    if stay is not None:
        sources += stay.data.split("; ")
        found = stay.methods | found
    calibration = AnomalyCalibration(
        prompt=config.prompt, data="; ".join(dict.fromkeys(sources)), methods=found
    ).model_dump(mode="json")
    fields = card.model_dump(exclude={"weights", "calibration"})
    write_card(folder, **fields, calibration={**card.calibration, "anomaly": calibration})
    return {"model": config.model, **calibration, "omissions": pictures.lines()}


def kept(before: AnomalyCalibration | None, config: CalibrationConfig) -> AnomalyCalibration | None:
    """Of what the card says, that of the methods that are not asked for; None if nothing stays.

    Raises:
        InvalidInput: it is of another prompt.
    """
    if before is None:
        return None
    methods = {name: each for name, each in before.methods.items() if name not in config.methods}
    if methods and before.prompt != config.prompt:
        raise InvalidInput(
            f"prompt is {config.prompt!r}, but the thresholds of {', '.join(methods)} were found"
            f" with {before.prompt!r}; calibrate all methods, or take that prompt"
        )
    return before.model_copy(update={"methods": methods}) if methods else None


def read_healthy(config: CalibrationConfig, pictures: Pictures) -> list[Healthy]:
    """Pictures on which nothing was found, in a drawn order; the others are left out and said so.

    Raises:
        InvalidInput: there are fewer than two.
    """
    import numpy as np

    from gen.data.collection import read_collection

    items = read_collection(config.data, config.split).items
    healthy: list[Healthy] = []
    for item in shuffled(items, np.random.default_rng(config.seed)):
        if item.labels is None:
            pictures.leave_out(item, "have no label, so nobody knows whether they are healthy")
        elif not item.labels.normal:
            pictures.leave_out(item, "are not of healthy people")
        elif len(healthy) < config.n and (read := read_fitted(item, pictures)) is not None:
            healthy.append(Healthy(*read, seed_of(config.seed, item.name)))
    if len(healthy) < 2:
        raise InvalidInput(
            f"data is {config.data}, whose split {config.split!r} has {len(healthy)} usable healthy"
            " picture(s), labelled No Finding or normal, but thresholds need at least 2; add some"
            f" ({'; '.join(pictures.lines()) or 'none was left out'})"
        )
    return healthy


def read_fitted(
    item: "Item", pictures: Pictures
) -> "tuple[ModelSquare, NDArray[np.float32]] | None":
    """A picture as `medphantom anomaly` fits it to the model; None if it cannot be read."""
    from gen.data.images import read_image
    from gen.data.model_square import ModelSquare

    try:
        pixels = read_image(item.file).pixels
        height, width = pixels.shape
        square = ModelSquare(height, width, pictures.side, orig_size=item.orig_size)
        return square, square.to_model(pixels)
    except MedphantomError:
        pictures.leave_out(item, "cannot be read")
        return None


def method_points(
    pipeline: "AnomalyPipeline",
    method: MethodName,
    healthy: Sequence[Healthy],
    config: CalibrationConfig,
    drawn: Bars,
) -> OperatingPoints:
    """What a method's maps of healthy pictures reach."""
    suspicious = (
        suspicion_limit(pipeline, healthy, config, drawn) if method == "autopaint" else None
    )
    found = answers(
        pipeline,
        [pipeline.process(each.fitted, method, config.prompt, each.seed, each.square, suspicious)
         for each in healthy],
        config, drawn, f"mapping: {method}",
    )  # fmt: skip
    return operating_points([each.map for each in found], suspicious)


def suspicion_limit(
    pipeline: "AnomalyPipeline", healthy: Sequence[Healthy], config: CalibrationConfig, drawn: Bars
) -> float:
    """What a share `SUSPICIOUS` of healthy people's pixels exceed at a first look."""
    import numpy as np

    looks = [
        pipeline.first_look(each.fitted, config.prompt, each.seed, each.square) for each in healthy
    ]
    found = np.concatenate(list(answers(pipeline, looks, config, drawn, "first look")))
    return float(f"{np.quantile(found, 1 - SUSPICIOUS):.5g}")


def answers(
    pipeline: "AnomalyPipeline",
    processes: "Sequence[Process[T]]",
    config: CalibrationConfig,
    drawn: Bars,
    title: str,
) -> "Iterator[T]":
    """What each process returns, in order, with a bar."""
    from gen.engine import Engine
    from jobs.device import rows_at_once

    report = drawn.bar(title)
    engine = Engine(precise(pipeline.networks, config.mixed_precision), rows_at_once())
    for done, ticket in enumerate(windowed(engine, processes, rows_at_once()), 1):
        report(done, len(processes))
        yield ticket.result()


def command(
    data: Data,
    model: Model = "cxr-mini",
    split: Annotated[str, typer.Option(help="Rows whose healthy pictures are taken")] = "val",
    method: Annotated[
        list[str] | None,
        typer.Option(help="One to calibrate, may be given again; else all, the others stay"),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Healthy pictures, at most")] = 200,
    prompt: Annotated[
        str, typer.Option(help="What healthy looks like, in the model's words")
    ] = HEALTHY_PROMPT,
    seed: Seed = 0,
    mixed_precision: MixedPrecision = Precision.NO,
) -> None:
    """Find from which value on a map shows what healthy people do not, and note it in the card.

    Only pictures labelled No Finding or normal count: a threshold that sick ones had a part in
    would promise what it cannot keep elsewhere. From then on --threshold-fpr 0.05 means that
    something is marked in one of twenty healthy pictures, whatever the method.

    Example:

    medphantom anomaly calibrate --data DIR --model runs/cxr/model -n 200
    """
    config = CalibrationConfig(
        data, model, tuple(check_anomaly_method(each) for each in method or METHODS),
        split=split, n=n, prompt=prompt, seed=seed, mixed_precision=mixed_precision,
    )  # fmt: skip
    with bars() as drawn:
        figures = calibrate(config, drawn)
    table = Table("method", "healthy pictures", "marked in", "above", title=model)
    for name, points in figures["methods"].items():
        for rate, threshold in points["pictures"].items():
            share = f"{float(rate):.0%}"
            table.add_row(name, str(points["num_images"]), share, f"{threshold:.4g}")
    give(table, figures, None)
