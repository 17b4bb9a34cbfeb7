"""`medphantom bench serve`: the service against the two ways Ray's documentation shows."""

import asyncio
import io
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput
from jobs.bench import PROMPTS

if TYPE_CHECKING:
    import httpx
    from ray.serve import Application

    from serve.settings import AppArgs

CONCURRENT = 8
FEWEST_STEPS, MOST_STEPS = 6, 25
IMAGES = (1, 1, 1, 2, 3)
LONG = {"prompt": PROMPTS[1], "n": 2, "num_inference_steps": 25, "seed": 1}
SHORT = {"prompt": PROMPTS[0], "n": 1, "num_inference_steps": 4, "seed": 2}
NUM_LONG = 4  # always under way while short requests arrive
WAYS = ("ours", "one at a time", "serve.batch")
Body = dict[str, Any]


def mixed(count: int) -> list[Body]:
    """Requests whose prompt, steps, images and seed users chose without asking each other."""
    draw = random.Random(0)
    return [
        {
            "prompt": draw.choice(PROMPTS),
            "n": draw.choice(IMAGES),
            "num_inference_steps": draw.randint(FEWEST_STEPS, MOST_STEPS),
            "seed": 100 * index,
        }
        for index in range(count)
    ]


def command(
    model: Annotated[str, typer.Option(help="Id, folder or checkpoint")] = "cxr-mini",
    requests: Annotated[int, typer.Option(min=8, help="Mixed requests a round, 8 at once")] = 32,
    shorts: Annotated[int, typer.Option(min=4, help="Short requests amid long ones a round")] = 20,
    interval: Annotated[float, typer.Option(help="Seconds between short requests")] = 1.5,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way")] = 3,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each way; a fraction is fine")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """The service, one request at a time a replica, and @serve.batch, on the same work.

    Each has one replica with the same threads. The three take turns in every round; a short
    request's wait is measured in an open loop amid long ones.
    """
    from jobs.device import device_name
    from jobs.train import revision

    result = run_bench(model, requests, shorts, interval, rounds, gpus)
    device = device_name(result["threads"])
    result |= {"device": device, "commit": revision(), "rounds": rounds}
    Console(stderr=True).print(
        f"Throughput of {CONCURRENT} concurrent mixed requests: "
        f"[bold]{result['over_one_at_a_time']:.2f}x[/bold] one at a time, "
        f"[bold]{result['over_serve_batch']:.2f}x[/bold] @serve.batch; "
        f"p95 of a short request {result['short_request_p95_ratio']:.2f} of the better rival's; "
        f"{100 * result['overhead']:.1f} % over the bare engine ({device})"
    )
    if as_json:
        typer.echo(json.dumps(result))


def run_bench(
    model: str, requests: int, shorts: int, interval: float, rounds: int, gpus: float
) -> dict[str, Any]:
    """Figures of all rounds."""
    from serve.app import build
    from serve.rivals import batched, one_at_a_time
    from serve.settings import AppArgs

    with tempfile.TemporaryDirectory() as folder:
        args = AppArgs(
            models=(model,),
            store=f"sqlite:///{Path(folder) / 'bench.db'}",
            results=str(Path(folder) / "results"),
            require_keys=False,
            num_gpus=gpus,
        )
        applications = (build(args), one_at_a_time(args), batched(args))
        with served(dict(zip(WAYS, applications, strict=True))) as urls:
            return asyncio.run(_measure(args, urls, requests, shorts, interval, rounds))


@contextmanager
def served(applications: "dict[str, Application]") -> Iterator[dict[str, str]]:
    """Applications on a cluster of their own; where each takes POST /v1/text-to-cxr."""
    import ray
    from ray import serve

    from jobs.cluster import free_port, start_ray

    # all are up at once and only one works: more CPUs on paper than there are
    start_ray(num_cpus=64)
    try:
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        urls = {}
        for name, application in applications.items():
            prefix = "/" + name.replace(" ", "-").replace(".", "-")
            serve.run(application, name=name, route_prefix=prefix)
            urls[name] = f"http://127.0.0.1:{port}{prefix}/v1/text-to-cxr"
        yield urls
    finally:
        serve.shutdown()
        ray.shutdown()


async def _measure(
    args: "AppArgs", urls: dict[str, str], requests: int, shorts: int, interval: float, rounds: int
) -> dict[str, Any]:
    import httpx

    bodies = mixed(requests)
    seconds: dict[str, list[float]] = {name: [] for name in (*WAYS, "engine")}
    waits: dict[str, list[float]] = {name: [] for name in WAYS}
    engine = BareEngine(args)
    async with httpx.AsyncClient(timeout=600) as client:
        difference = max([await _difference(client, urls, body) for body in bodies[:4]])
        if difference > 1:
            raise InvalidInput(f"images of the three ways differ by {difference} grey levels")
        for _ in range(rounds):
            for name in WAYS:
                seconds[name].append(await closed_loop(bodies, _sender(client, urls[name])))
                waits[name] += await _short_waits(_sender(client, urls[name]), shorts, interval)
            seconds["engine"].append(await closed_loop(bodies, engine.make))
    engine.close()
    p95 = {name: statistics.quantiles(each, n=20)[-1] for name, each in waits.items()}
    ratios = {
        name: [rival / ours for rival, ours in zip(seconds[name], seconds["ours"], strict=True)]
        for name in seconds
    }
    return {
        "over_one_at_a_time": statistics.median(ratios["one at a time"]),
        "over_serve_batch": statistics.median(ratios["serve.batch"]),
        "short_request_p95_ratio": p95["ours"] / min(p95["one at a time"], p95["serve.batch"]),
        "overhead": 1 / statistics.median(ratios["engine"]) - 1,
        "ratios": ratios,
        "seconds": seconds,
        "short_p95_s": p95,
        "short_median_s": {name: statistics.median(each) for name, each in waits.items()},
        "max_grey_levels": difference,
        "requests": requests,
        "threads": engine.threads,
        "max_rows": engine.max_rows,
    }


async def closed_loop(bodies: list[Body], send: Callable[[Body], Awaitable[Any]]) -> float:
    """Seconds for all requests, `CONCURRENT` at a time."""
    left = iter(bodies)

    async def user() -> None:
        for body in left:
            await send(body)

    started = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(CONCURRENT)))
    return time.perf_counter() - started


async def _short_waits(
    send: Callable[[Body], Awaitable[Any]], count: int, interval: float
) -> list[float]:
    """Seconds of short requests that arrive at fixed times, whatever becomes of the earlier."""

    arriving = True

    async def long_user() -> None:
        while arriving:  # to the end: @serve.batch does not survive that all of a batch hang up
            await send(LONG)

    async def short(index: int) -> float:
        await asyncio.sleep(index * interval)
        started = time.perf_counter()
        await send(SHORT)
        return time.perf_counter() - started

    users = [asyncio.create_task(long_user()) for _ in range(NUM_LONG)]
    await asyncio.sleep(2 * interval)
    waits = await asyncio.gather(*(short(index) for index in range(count)))
    arriving = False
    await asyncio.gather(*users)
    return waits


def _sender(client: "httpx.AsyncClient", url: str) -> Callable[[Body], Awaitable[bytes]]:
    async def send(body: Body) -> bytes:
        answer = await client.post(url, json=body)
        answer.raise_for_status()
        return answer.content

    return send


async def _difference(client: "httpx.AsyncClient", urls: dict[str, str], body: Body) -> int:
    """Largest difference in grey levels between the ways' images of a request."""
    import numpy as np
    from PIL import Image

    pictures = []
    for url in urls.values():
        headers = {"Accept": "image/png"}
        answer = await client.post(url, json={**body, "n": 1}, headers=headers)
        answer.raise_for_status()
        pictures.append(np.asarray(Image.open(io.BytesIO(answer.content)), dtype=int))
    pairs = itertools.combinations(pictures, 2)
    return max(int(np.abs(first - second).max()) for first, second in pairs)


class BareEngine:
    """The engine alone, in this process, with the service's row budget and threads."""

    def __init__(self, args: "AppArgs") -> None:
        from jobs.tasks import TASKS
        from serve.warm_up import make_executor

        self.threads = args.threads or max(1, int(args.cpus))
        self._executor = make_executor(args)
        self.max_rows = self._executor.rows.max_rows
        self._task = TASKS["text-to-cxr"]
        self._model = args.models[0]

    async def make(self, body: Body) -> None:
        """The images of one request."""
        from jobs.work import Work

        spec = self._task.check({**body, "model": self._model})
        items = dict(enumerate(self._task.items(spec, "bench")))
        work = Work(self._task.name, "bench", "", spec.model_dump(mode="json"), items)
        async for _ in self._executor.run(work):
            pass

    def close(self) -> None:
        """End the engine's thread."""
        self._executor.close()
