"""`medphantom bench anomaly`: what each method of mapping anomalies costs, side by side."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.anomaly.calibration import HEALTHY_PROMPT, METHODS, check_anomaly_method
from jobs.bars import Report, bars
from jobs.counted import counted
from jobs.targets import Model
from jobs.window import windowed

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray

    from gen.anomaly.calibration import MethodName
    from pipelines.anomaly import AnomalyPipeline


def chest_like(side: int, seed: int) -> "NDArray[np.float32]":
    """A bright torso in black air with two dark, mottled lungs: (S, S) in [0, 1]."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:side, :side] / side - 0.5
    torso = np.hypot(y / 0.6, x / 0.45) < 1
    lungs = np.hypot(y / 0.3, (np.abs(x) - 0.18) / 0.13) < 1
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), side / 64)
    grey = torso * (np.where(lungs, 0.3, 0.7) + 0.04 * noise / noise.std())
    return np.clip(gaussian_filter(grey, 1), 0, 1).astype(np.float32)


def bench_anomaly(
    pipeline: "AnomalyPipeline",
    squares: "Sequence[NDArray[np.float32]]",
    methods: "Sequence[MethodName]",
    rounds: int,
    report: Report,
) -> dict[str, Any]:
    """U-Net calls and seconds an image of each method; the order turns by one a round."""
    import torch

    from gen.engine import Engine
    from jobs.device import rows_at_once

    def measure(method: "MethodName", seed: int) -> tuple[float, float]:
        networks, rows = counted(pipeline.networks)
        engine = Engine(networks, rows_at_once(), pad_rows=False)  # padding would be counted
        processes = (
            pipeline.process(square, method, HEALTHY_PROMPT, seed + index)
            for index, square in enumerate(squares)
        )
        started = time.perf_counter()
        for ticket in windowed(engine, processes, rows_at_once()):
            ticket.result()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return rows["unet"] / len(squares), (time.perf_counter() - started) / len(squares)

    measure("single_step", 0)  # the first forward allocates
    calls: dict[str, list[float]] = {name: [] for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        turn = number % len(methods)
        for done, name in enumerate([*methods[turn:], *methods[:turn]], 1):
            called, took = measure(name, 1000 * number)
            calls[name].append(called)
            seconds[name].append(took)
            report(number * len(methods) + done, rounds * len(methods))
    return {
        "network_calls": {name: statistics.median(each) for name, each in calls.items()},
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "seconds_range": {name: [min(each), max(each)] for name, each in seconds.items()},
        "images": len(squares),
    }


def command(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="To map; chest-like noise if none is given"),
    ] = None,
    model: Model = "cxr-mini",
    images: Annotated[int, typer.Option(min=1, help="Chest-like pictures, mapped together")] = 4,
    method: Annotated[
        list[str] | None, typer.Option(help="One to measure, may be given again; else all")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each method")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Network calls and seconds an image of each method of `medphantom anomaly`, in turns."""
    import torch

    from gen.data.images import read_image
    from gen.data.model_square import ModelSquare
    from jobs.device import device_name
    from jobs.train import revision
    from pipelines.anomaly import AnomalyPipeline

    methods = [check_anomaly_method(each) for each in method or METHODS]
    pipeline = AnomalyPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    read = [read_image(path).pixels for path in pictures or []]
    squares = [ModelSquare(len(each), each.shape[1], pipeline.size).to_model(each) for each in read]
    squares = squares or [chest_like(pipeline.size, seed) for seed in range(images)]
    with bars() as drawn:
        result = bench_anomaly(pipeline, squares, methods, rounds, drawn.bar("mapping"))
    result |= {"device": device_name(), "commit": revision(), "rounds": rounds}
    console = Console(stderr=True)
    for name, calls in result["network_calls"].items():
        took = result["seconds"][name]
        console.print(f"{name}: [bold]{calls:g}[/bold] network calls, {took:.2f} s an image")
    if as_json:
        typer.echo(json.dumps(result))
