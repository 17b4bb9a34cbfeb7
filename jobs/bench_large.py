"""`medphantom bench large`: shifted windows against the paper's overlapping ones."""

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from jobs.bars import Bars, bars
from jobs.device import Precision, autocast, device_name, rows_at_once
from jobs.targets import MixedPrecision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS = ("shift", "overlap")


def command(
    like: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Reference image")],
    model: Annotated[str, typer.Option(help="Id, folder or hub id")] = "histo-mini",
    side: Annotated[int, typer.Option(min=256, help="Pixels a side of each image")] = 1024,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps")] = 25,
    guidance: Annotated[float, typer.Option(help="Guidance scale of both")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Seeds, each drawn by both")] = 2,
    mixed_precision: MixedPrecision = Precision.NO,
    out: Annotated[Path | None, typer.Option(help="Folder for the images, to look at")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Network calls, seams and crop Fréchet distance of both methods, same field and steps."""
    from jobs.train import revision

    with bars() as progress:
        result = run_bench(
            like, model, side, steps, guidance, rounds, mixed_precision, out, progress
        )
    result |= {"device": device_name(), "commit": revision(), "rounds": rounds}
    Console(stderr=True).print(
        f"shift against overlap: [bold]{result['network_calls_ratio']:.3f}[/bold] of the network"
        f" calls, seams {result['seam_score']['shift']:.3f} against"
        f" {result['seam_score']['overlap']:.3f} (real {result['seam_score']['real']:.3f}),"
        f" crop Fréchet distance {result['crop_fd']['shift']:.3f} against"
        f" {result['crop_fd']['overlap']:.3f} (real against real {result['crop_fd']['real']:.3f})"
    )
    if as_json:
        typer.echo(json.dumps(result))


def run_bench(
    like: Path,
    model: str,
    side: int,
    steps: int,
    guidance: float,
    rounds: int,
    mixed_precision: Precision,
    out: Path | None,
    progress: Bars,
) -> dict[str, Any]:
    """Figures over all rounds; seeds and fields are the same for both methods."""
    import time

    import numpy as np
    import torch
    from PIL import Image

    from gen.data.slide import open_slide
    from gen.engine import run
    from jobs.counted import counted
    from pipelines.large_image import LargeImagePipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = LargeImagePipeline.from_pretrained(model).to(device)
    with open_slide(like) as slide:
        field = run(pipeline.field_like(slide.read, slide.height, slide.width), pipeline.networks)
        real = slide.read(0, 0, slide.height, slide.width)
    images: dict[str, list[NDArray[np.uint8]]] = {method: [] for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    calls: dict[str, int] = dict.fromkeys(METHODS, 0)
    for seed in range(rounds):
        for method in METHODS:
            networks, rows = counted(pipeline.networks)
            bands: list[NDArray[np.uint8]] = []
            process = pipeline.process(
                field,
                bands.append,
                height=side,
                width=side,
                method=method,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(seed),
                on_windows=progress.bar(f"{method}, seed {seed}"),
            )
            started = time.perf_counter()
            with autocast(mixed_precision):
                run(process, networks, max_rows=rows_at_once())
            seconds[method].append(time.perf_counter() - started)
            images[method].append(np.concatenate(bands))
            calls[method] += rows["unet"]
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[method][-1]).save(out / f"{method}-{seed}.png")
    seams = {method: _seams(images[method], pipeline.patch_size) for method in METHODS}
    features = {method: _features(pipeline, images[method]) for method in METHODS}
    return {
        "network_calls_ratio": calls["shift"] / calls["overlap"],
        "network_calls": calls,
        "network_calls_per_megapixel": {
            method: count / (rounds * side**2 / 1e6) for method, count in calls.items()
        },
        "time_ratio": sum(seconds["shift"]) / sum(seconds["overlap"]),
        "seam_score": {**seams, "real": _seams([real], pipeline.patch_size)},
        "crop_fd": _distances(features, _features(pipeline, [real])),
        "side": side,
        "steps": steps,
        "mixed_precision": mixed_precision.value,
    }


def _seams(images: "list[NDArray[np.uint8]]", period: int) -> float:
    """Mean over images of the worst phase's seam score."""
    from gen.metrics.seams import seam_score

    return statistics.fmean(seam_score(image, period).worst for image in images)


def _features(pipeline: Any, images: "list[NDArray[np.uint8]]") -> "NDArray[np.float64]":
    """Features (N, D) of crops of a patch, half a patch apart."""
    import numpy as np

    from gen.reference_field import reader

    side = pipeline.patch_size
    grids = [
        pipeline.embedder.embed_grid(reader(image), *image.shape[:2], side // 2, side)
        for image in images
    ]
    return np.concatenate([grid.flatten(0, 1).double().numpy() for grid in grids])


def _distances(
    features: "dict[str, NDArray[np.float64]]", real: "NDArray[np.float64]"
) -> dict[str, float]:
    """Fréchet distances of crops to the real image's, and of one half of those to the other."""
    from gen.metrics.frechet import frechet_distance

    distances = {name: frechet_distance(each, real) for name, each in features.items()}
    return {**distances, "real": frechet_distance(real[::2], real[1::2])}
