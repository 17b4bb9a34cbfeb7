"""`medphantom bench minority`: what seeking the rare costs, beside plain sampling."""

import json
import statistics
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput
from jobs.bars import Report, bars
from jobs.bench import PROMPTS

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.guidance.minority import DistanceKind
    from pipelines.minority import MinoritySampling
    from pipelines.text_to_cxr import TextToCXRPipeline

PLAIN = "plain"


def ways(distance: "DistanceKind") -> "dict[str, MinoritySampling | None]":
    """Plain sampling, each method as it is offered, and as released: a gradient at every step."""
    from pipelines.minority import MinoritySampling

    return {
        PLAIN: None,
        "boost_and_skip": MinoritySampling("boost_and_skip", 2.0),
        "classifier": MinoritySampling("classifier", 4.0),
        "self_guided": MinoritySampling("self_guided", 0.2, distance=distance),
        "prompt": MinoritySampling("prompt", 0.02, distance=distance),
        "self_guided, every step": MinoritySampling(
            "self_guided", 0.2, every=1, between=(0, 1), distance=distance
        ),
    }


def bench_minority(
    pipeline: "TextToCXRPipeline", images: int, steps: int, rounds: int, report: Report
) -> dict[str, Any]:
    """Seconds of each way over plain sampling's of the same round; the order turns by one a round.

    Without a trained classifier one of random weights is timed, which is as fast.
    """
    import torch

    from gen.denoising import make_generators
    from gen.engine import run
    from gen.models.minority_classifier import MinorityClassifier

    if pipeline.minority_classifier is None:
        width = pipeline.text_encoder.config.hidden_size
        classifier = MinorityClassifier(pipeline.unet.config.in_channels, condition_dim=width)
        classifier.requires_grad_(False).eval().to(pipeline.device, pipeline.unet.dtype)
        pipeline.register_modules(minority_classifier=classifier)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(images)]

    def draw(sampling: "MinoritySampling | None", seed: int) -> float:
        process = pipeline.process(
            prompts,
            num_inference_steps=steps,
            generator=make_generators(range(seed, seed + images)),
            minority=sampling,
        )
        started = time.perf_counter()
        run(process, pipeline.networks)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    draw(None, 0)  # the first forward allocates
    try:
        distance = pipeline.minority_calibration.score.distance
    except InvalidInput:  # it is not calibrated, and has no encoder
        distance = "latent"
    named = list(ways(distance).items())
    seconds: dict[str, list[float]] = {name: [] for name, _ in named}
    for number in range(rounds):
        turn = number % len(named)
        for done, (name, sampling) in enumerate(named[turn:] + named[:turn]):
            seconds[name].append(draw(sampling, 1000 * number))
            report(number * len(named) + done + 1, rounds * len(named))
    ratios = {
        name: [ours / plain for ours, plain in zip(each, seconds[PLAIN], strict=True)]
        for name, each in seconds.items()
        if name != PLAIN
    }
    return {
        "time_ratio": {name: statistics.median(each) for name, each in ratios.items()},
        "time_ratio_range": {name: [min(each), max(each)] for name, each in ratios.items()},
        "seconds": seconds,
        "images": images,
        "steps": steps,
    }


def command(
    model: Annotated[str, typer.Option(help="Id, folder or checkpoint")] = "cxr-mini",
    images: Annotated[int, typer.Option(min=1, help="Made together")] = 4,
    steps: Annotated[int, typer.Option(min=9, help="Solver steps")] = 25,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Each way to seek the rare, against plain sampling of the same images, in turns."""
    import torch

    from jobs.device import device_name
    from jobs.train import revision
    from pipelines.text_to_cxr import TextToCXRPipeline

    pipeline = TextToCXRPipeline.from_pretrained(model)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    with bars() as drawn:
        report = drawn.bar("sampling")
        result = bench_minority(pipeline, images, steps, rounds, report)
    result |= {"device": device_name(), "commit": revision(), "rounds": rounds}
    console = Console(stderr=True)
    for name, ratio in result["time_ratio"].items():
        low, high = result["time_ratio_range"][name]
        console.print(f"{name}: [bold]{ratio:.2f}[/bold] of plain ({low:.2f} to {high:.2f})")
    if as_json:
        typer.echo(json.dumps(result))
