"""`medphantom bench overload`: one key floods the service, another is polite."""

import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput
from jobs.bench import PROMPTS
from serve.bench_command import served

if TYPE_CHECKING:
    import httpx

FLOOD = 10  # times what the service can make
BODY = {"prompt": PROMPTS[0], "num_inference_steps": 10, "seed": 1}


def command(
    model: Annotated[str, typer.Option(help="Id, folder or checkpoint")] = "cxr-mini",
    requests: Annotated[int, typer.Option(min=5, help="Of the polite key, one after another")] = 30,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs; a fraction is fine")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout")] = False,
) -> None:
    """What a polite key waits while another sends ten times what can be made, against alone."""
    from jobs.device import device_name
    from jobs.train import revision

    result = run_overload(model, requests, gpus)
    device = device_name()
    result |= {"device": device, "commit": revision(), "rounds": 1}
    Console(stderr=True).print(
        f"{result['sent']} requests: {result['accepted']} accepted, {result['rejected']} turned "
        f"away; the polite key's p95 is [bold]{result['polite_p95_ratio']:.2f}[/bold] times that "
        f"of an idle service ({device})"
    )
    if as_json:
        typer.echo(json.dumps(result))


def run_overload(model: str, requests: int, gpus: float) -> dict[str, Any]:
    """Figures of one run."""
    from jobs.keys import KeyStore, Scope
    from serve.app import build
    from serve.settings import AppArgs

    with tempfile.TemporaryDirectory() as folder:
        args = AppArgs(
            models=(model,),
            store=f"sqlite:///{Path(folder) / 'bench.db'}",
            results=str(Path(folder) / "results"),
            require_keys=True,
            num_gpus=gpus,
        )
        keys = KeyStore(args.store)
        secrets = [keys.create(name, [Scope.GENERATE], None)[1] for name in ("greedy", "polite")]
        keys.close()
        with served({"ours": build(args)}) as urls:
            greedy, polite = secrets
            return asyncio.run(_measure(urls["ours"], greedy, polite, requests))


async def _measure(url: str, greedy: str, polite: str, requests: int) -> dict[str, Any]:
    import httpx

    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=500)) as client:
        await _send(client, url, polite)  # connections and caches
        alone = [(await _send(client, url, polite))[1] for _ in range(requests)]
        interval = statistics.median(alone) / FLOOD
        flood = asyncio.create_task(_flood(client, url, greedy, interval))
        await asyncio.sleep(10 * statistics.median(alone))
        crowded = [(await _send(client, url, polite))[1] for _ in range(requests)]
        flood.cancel()
        answers = await flood
    statuses = Counter(answer.status_code for answer in answers)
    if set(statuses) - {200, 429}:
        raise InvalidInput(f"the flood was answered with {dict(statuses)}, not 200 and 429 alone")
    if any("retry-after" not in each.headers for each in answers if each.status_code == 429):
        raise InvalidInput("a request was turned away without Retry-After")
    p95 = {
        name: statistics.quantiles(each, n=20)[-1]
        for name, each in (("alone", alone), ("crowded", crowded))
    }
    return {
        "sent": len(answers),
        "accepted": statuses[200],
        "rejected": statuses[429],
        "polite_p95_ratio": p95["crowded"] / p95["alone"],
        "polite_median_ratio": statistics.median(crowded) / statistics.median(alone),
        "polite_p95_s": p95,
    }


async def _flood(
    client: "httpx.AsyncClient", url: str, key: str, interval: float
) -> list["httpx.Response"]:
    """Send at fixed times whatever becomes of the earlier ones, until cancelled; then wait."""
    sent: list[asyncio.Task[tuple[httpx.Response, float]]] = []
    try:
        while True:
            sent.append(asyncio.create_task(_send(client, url, key)))
            await asyncio.sleep(interval)
    except asyncio.CancelledError:
        return [response for response, _ in await asyncio.gather(*sent)]


async def _send(client: "httpx.AsyncClient", url: str, key: str) -> "tuple[httpx.Response, float]":
    """An answer and the seconds it took."""
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {key}"}
    response = await client.post(url, json=BODY, headers=headers)
    return response, time.perf_counter() - started
