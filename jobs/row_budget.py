"""How many rows a forward should have on this device, measured.

Three numbers come out (see `gen.engine.Engine`): `max_rows`, where more rows no longer make images
faster; `exact_rows`, from where on the shape of a forward no longer shows in the last bits; and
`shared_rows`, what a lone request can be joined by without being slowed much.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gen.types import Component, Components, ModelCall, Process

GOOD_ENOUGH = 0.92  # of the best throughput: longer forwards would only let newcomers wait
SLOWED = 1.25  # a lone request's forward may take so much longer for company
CPU_LIMIT, GPU_LIMIT = 16, 128
ROUNDS = 5


@dataclass(frozen=True)
class RowBudget:
    """Rows a forward; each a power of two."""

    max_rows: int
    exact_rows: int
    shared_rows: int

    def to_dict(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


def measure_rows(
    process: Process[Any], components: Components, device: torch.device, max_rows: int | None = None
) -> RowBudget:
    """Run a process, then time and compare its calls at 1, 2, 4, ... rows.

    Args:
        process: a short one that calls every component.
        components: its networks.
        device: where they are.
        max_rows: use this budget, a power of two, instead of the fastest one.
    """
    calls, counts = _collect(process, components)
    busiest = max(calls, key=lambda name: counts[name])
    limit = max_rows or (CPU_LIMIT if device.type == "cpu" else GPU_LIMIT)
    sizes = [1 << power for power in range(limit.bit_length()) if 1 << power <= limit]
    seconds = _time(components[busiest], calls[busiest], sizes, device)
    most = max_rows or fastest_rows(seconds)
    exact = max(
        _exact_from(components[name], call, [size for size in sizes if size <= most])
        for name, call in calls.items()
    )
    return RowBudget(most, exact, min(most, company_rows(seconds)))


def exact_rows(process: Process[Any], components: Components, max_rows: int) -> int:
    """From how many rows on, up to `max_rows`, a power of two, bits do not depend on their number.

    Args:
        process: a short one that calls every component.
        components: its networks.
    """
    calls, _ = _collect(process, components)
    sizes = [1 << power for power in range(max_rows.bit_length())]
    return max(_exact_from(components[name], call, sizes) for name, call in calls.items())


def fastest_rows(seconds: dict[int, float]) -> int:
    """The fewest rows whose throughput is nearly the best; `seconds` of a forward by its rows."""
    best = max(rows / taken for rows, taken in seconds.items())
    return min(rows for rows, taken in seconds.items() if rows / taken >= GOOD_ENOUGH * best)


def company_rows(seconds: dict[int, float]) -> int:
    """The most rows that take little longer than the two of a lone guided request."""
    alone = seconds.get(2, seconds[1])
    return max(rows for rows, taken in seconds.items() if rows <= 2 or taken <= SLOWED * alone)


def _collect(
    process: Process[Any], components: Components
) -> tuple[dict[str, ModelCall], Counter[str]]:
    """The first call to each component, and how often each is called."""
    calls: dict[str, ModelCall] = {}
    counts: Counter[str] = Counter()
    try:
        call = next(process)
        while True:
            calls.setdefault(call.component, call)
            counts[call.component] += 1
            with torch.no_grad():
                answer = components[call.component](*call.rows)
            call = process.send(answer)
    except StopIteration:
        return calls, counts


def _rows(call: ModelCall, count: int) -> tuple[Tensor, ...]:
    """So many different rows like those of a call."""
    repeated = []
    for row in call.rows:
        many = row[:1].expand(count, *row.shape[1:]).clone()
        if many.is_floating_point():
            scale = torch.linspace(0.5, 1, count, device=many.device, dtype=many.dtype)
            many *= scale.view(-1, *[1] * (many.ndim - 1))
        repeated.append(many)
    return tuple(repeated)


def _time(
    component: Component, call: ModelCall, sizes: list[int], device: torch.device
) -> dict[int, float]:
    """Least seconds of a forward by its rows, up to where memory ends.

    The sizes take turns and the least counts, so that other work on the machine, which comes and
    goes, does not decide.
    """
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[int, float] = {}
    for number in range(ROUNDS + 1):
        for size in sizes if number == 0 else list(seconds):
            started = time.perf_counter()
            try:
                with torch.no_grad():
                    component(*_rows(call, size))
                wait()
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            taken = time.perf_counter() - started
            # the first round allocates
            seconds[size] = taken if number < 2 else min(taken, seconds[size])
    return seconds


def _exact_from(component: Component, call: ModelCall, sizes: list[int]) -> int:
    """The fewest rows whose answers equal those of the largest forward bit for bit."""
    rows = _rows(call, sizes[-1])
    with torch.no_grad():
        whole = component(*rows)
        for size in reversed(sizes[:-1]):
            parts = [
                component(*(row[start : start + size] for row in rows))
                for start in range(0, sizes[-1], size)
            ]
            if not torch.equal(torch.cat(parts), whole):
                return size * 2
    return sizes[0]
