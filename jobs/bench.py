"""`medphantom bench`: timings, each a ratio of two ways measured side by side in one run."""

import json
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported when something is measured
    from torch import Tensor

    from gen.types import Process
    from pipelines.text_to_cxr import TextToCXRPipeline

commands = typer.Typer(
    no_args_is_help=True, help="Time two ways of doing one thing, side by side, and give the ratio."
)

PROMPTS = (
    "normal chest x-ray of a young child",
    "chest x-ray of a young child with bacterial pneumonia",
    "posteroanterior chest radiograph of an adult man, no acute finding",
    "frontal chest radiograph of a woman with pleural effusion",
)
SCHEDULERS = ("dpm++", "ddim", "euler", "heun")
STEPS = (6, 8, 10, 12)


@dataclass(frozen=True)
class Request:
    """One user's wish."""

    prompt: str
    scheduler: str
    num_inference_steps: int
    seed: int


def mixed_requests(count: int) -> list[Request]:
    """Requests that differ in prompt, scheduler, steps and seed."""
    return [
        Request(PROMPTS[i % 4], SCHEDULERS[i // 4 % 4], STEPS[(i + i // 4) % 4], 1000 + i)
        for i in range(count)
    ]


def process_of(pipeline: "TextToCXRPipeline", request: Request) -> "Process[Tensor]":
    """The sampling process of a request, with a scheduler of its own."""
    from gen.denoising import make_generators, scheduler_named

    return pipeline.process(
        request.prompt,
        scheduler=scheduler_named(request.scheduler, pipeline.scheduler.config),
        num_inference_steps=request.num_inference_steps,
        generator=make_generators([request.seed]),
    )


def bench_engine(
    pipeline: "TextToCXRPipeline", requests: list[Request], max_rows: int, rounds: int
) -> dict[str, Any]:
    """Requests one after another against all at once through one engine.

    Returns:
        `ratio`: median over the rounds of alone / together; `max_abs_diff` over all pixels, of
        images in [0, 1].
    """
    import torch

    from gen.engine import Engine, run

    def alone() -> "list[Tensor]":
        return [run(process_of(pipeline, each), pipeline.networks) for each in requests]

    def together() -> "list[Tensor]":
        engine = Engine(pipeline.networks, max_rows)
        tickets = [engine.submit(process_of(pipeline, each)) for each in requests]
        engine.drain()
        return [ticket.result() for ticket in tickets]

    run(process_of(pipeline, requests[0]), pipeline.networks)  # the first forward allocates
    ratios, difference = [], 0.0
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(rounds):
        images = []
        for name, way in (("alone", alone), ("together", together)):
            started = time.perf_counter()
            images.append(torch.stack([each.cpu() for each in way()]))
            seconds[name].append(time.perf_counter() - started)
        ratios.append(seconds["alone"][-1] / seconds["together"][-1])
        difference = max(difference, float((images[0] - images[1]).abs().max()))
    return {
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "seconds": seconds,
        "max_abs_diff": difference,
        "requests": len(requests),
        "max_rows": max_rows,
    }


@commands.command()
def engine(
    model: Annotated[str, typer.Option(help="Id, folder or checkpoint")] = "cxr-mini",
    requests: Annotated[int, typer.Option(min=2, help="Concurrent requests")] = 16,
    max_rows: Annotated[int, typer.Option(min=1, help="Row budget of the engine")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """Mixed requests sharing each forward, against the same ones one after another."""
    import torch

    from jobs.device import device_name
    from jobs.train import revision
    from pipelines.text_to_cxr import TextToCXRPipeline

    cuda = torch.cuda.is_available()
    pipeline = TextToCXRPipeline.from_pretrained(
        model, torch_dtype=torch.float16 if cuda else torch.float32
    ).to("cuda" if cuda else "cpu")
    result = bench_engine(pipeline, mixed_requests(requests), max_rows, rounds)
    device = device_name()
    result |= {"device": device, "commit": revision(), "rounds": rounds}
    if not result["max_abs_diff"] <= (0.05 if cuda else 1e-3):
        raise InvalidInput(
            f"images differ by {result['max_abs_diff']} between the two ways; a figure of speed"
            " means nothing then. Please report it with the model's name"
        )
    Console(stderr=True).print(
        f"{requests} requests together: [bold]{result['ratio']:.2f}x[/bold] the throughput of one"
        f" after another ({device}); largest pixel difference {result['max_abs_diff']:.1e}"
    )
    if as_json:
        typer.echo(json.dumps(result))
