"""Rows a forward: what invented timings and networks that round should give."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.engine import Engine
from gen.types import Components, ModelCall, Process
from jobs import row_budget
from jobs.row_budget import RowBudget, company_rows, exact_rows, fastest_rows, measure_rows

CPU = torch.device("cpu")


def process() -> Process[None]:
    """One call of the text encoder, three guided ones of the U-Net."""
    yield ModelCall("text_encoder", (torch.arange(4).expand(1, -1),))
    for _ in range(3):
        yield ModelCall("unet", (torch.ones(2, 3), torch.ones(2)))


def encode(tokens: Tensor) -> Tensor:
    return tokens.float()


def rounding_below(rows: int) -> Any:
    """A network whose last bits depend on the shape of a forward with fewer rows."""

    def unet(sample: Tensor, times: Tensor) -> Tensor:
        return sample + times[:, None] + (1e-6 * len(sample) if len(sample) < rows else 0)

    return unet


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that only the networks of a test make pass."""
    now = [0.0]
    monkeypatch.setattr(row_budget, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ({1: 1, 2: 2, 4: 4}, 1),  # nothing is gained
        ({1: 1, 2: 1, 4: 1}, 4),  # more rows are free
        ({1: 1, 2: 1.2, 4: 2.0, 8: 3.9, 16: 7.7}, 4),  # 8 and 16 gain under 5 %
        ({1: 1, 2: 1.2, 4: 2.0, 8: 3.6}, 8),
        ({1: 1, 2: 1.5, 4: 9}, 2),
    ],
)
def test_the_fewest_rows_with_nearly_the_best_throughput(
    seconds: dict[int, float], rows: int
) -> None:
    assert fastest_rows(seconds) == rows


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ({1: 5, 2: 10, 4: 20}, 2),  # company would double the wait
        ({1: 5, 2: 10, 4: 12.5}, 4),
        ({1: 5, 2: 10, 4: 12.6}, 2),
        ({1: 9, 2: 10, 4: 11, 8: 12, 16: 30}, 8),
        ({1: 5}, 1),
    ],
)
def test_the_most_rows_that_hardly_slow_a_lone_guided_request(
    seconds: dict[int, float], rows: int
) -> None:
    assert company_rows(seconds) == rows


def test_the_busiest_network_is_timed_and_its_best_round_counts(clock: list[float]) -> None:
    calls = itertools.count()

    def unet(sample: Tensor, times: Tensor) -> Tensor:
        clock[0] += max(4, len(sample)) + 50 * (next(calls) % 2)  # others disturb it
        return sample

    def slow_encoder(tokens: Tensor) -> Tensor:
        clock[0] += 1000 * len(tokens)  # is called once, so its best shape is nobody's concern
        return tokens.float()

    components: Components = {"text_encoder": slow_encoder, "unet": unet}
    assert measure_rows(process(), components, CPU) == RowBudget(4, 1, 4)


def test_networks_that_are_exact_everywhere_need_no_padding() -> None:
    components: Components = {"text_encoder": encode, "unet": rounding_below(0)}
    assert measure_rows(process(), components, CPU, max_rows=8).exact_rows == 1


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_exact_rows_begin_where_no_network_rounds_by_shape(rows: int) -> None:
    components: Components = {"text_encoder": encode, "unet": rounding_below(rows)}
    budget = measure_rows(process(), components, CPU, max_rows=16)
    assert (budget.max_rows, budget.exact_rows) == (16, rows)


def test_one_network_that_rounds_is_enough_even_if_it_is_called_once() -> None:
    def encode_badly(tokens: Tensor) -> Tensor:
        return tokens + (1e-6 if len(tokens) < 4 else 0)

    components: Components = {"text_encoder": encode_badly, "unet": rounding_below(0)}
    assert measure_rows(process(), components, CPU, max_rows=8).exact_rows == 4


def test_rows_differ_so_that_a_mix_up_between_them_shows() -> None:
    def leaking(sample: Tensor, times: Tensor) -> Tensor:
        return sample + 1e-3 * sample.mean()  # depends on the company at any size

    components: Components = {"text_encoder": encode, "unet": leaking}
    assert measure_rows(process(), components, CPU, max_rows=8).exact_rows == 8


def test_a_budget_that_is_given_bounds_what_is_tried() -> None:
    sizes: set[int] = set()

    def unet(sample: Tensor, times: Tensor) -> Tensor:
        sizes.add(len(sample))
        return sample

    budget = measure_rows(process(), {"text_encoder": encode, "unet": unet}, CPU, max_rows=4)
    assert budget.max_rows == 4
    assert budget.shared_rows <= 4
    assert sizes <= {1, 2, 4}


def test_memory_that_ends_bounds_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def unet(sample: Tensor, times: Tensor) -> Tensor:
        if len(sample) > 2:
            raise torch.OutOfMemoryError
        return sample

    assert measure_rows(process(), {"text_encoder": encode, "unet": unet}, CPU).max_rows <= 2


def test_what_is_measured_fits_the_engine() -> None:
    components: Components = {"text_encoder": encode, "unet": rounding_below(4)}
    budget = measure_rows(process(), components, CPU)
    Engine(
        components, budget.max_rows, exact_rows=budget.exact_rows, shared_rows=budget.shared_rows
    )
    assert RowBudget(**budget.to_dict()) == budget


def test_exact_rows_are_the_fewest_whose_bits_are_those_of_more() -> None:
    def shaped(rows: torch.Tensor) -> torch.Tensor:
        return rows + (1e-3 if len(rows) < 4 else 0.0)

    def ask() -> Process[None]:
        yield ModelCall("network", (torch.ones(1, 2),))

    assert exact_rows(ask(), {"network": shaped}, 8) == 4
    assert exact_rows(ask(), {"network": torch.clone}, 8) == 1
