"""The engine gives every process what it gets alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gen.denoising import (
    SCHEDULERS,
    denoise,
    draw_noise,
    fresh_scheduler,
    make_generators,
    scheduler_named,
)
from gen.engine import BATCH, Engine, run
from gen.errors import InvalidInput, MedphantomError, ProcessCancelled
from gen.guidance.classifier_free import classifier_free
from gen.sharing import FEWEST_ROWS, fair_shares
from gen.types import Components, ModelCall, Process

# Sums in float32 are rounded differently for each batch shape: about 1e-6 a forward here, and the
# sampler adds up a dozen of them.
TOLERANCE = 1e-4

REQUEST = st.fixed_dictionaries(
    {
        "seeds": st.lists(st.integers(0, 1000), min_size=1, max_size=3),
        "scheduler": st.sampled_from(sorted(SCHEDULERS)),
        "steps": st.integers(2, 5),
        "scale": st.sampled_from([1.0, 2.5]),
        "prompt": st.integers(0, 5),
        "joins": st.integers(0, 4),
        "end": st.sampled_from(["result", "result", "cancel", "fail"]),
    }
)


@pytest.fixture(scope="module")
def networks(tiny_parts: dict[str, Any]) -> Components:
    """A tiny U-Net that fails on latents of which one is not a number."""

    def unet(latents: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        if latents.isnan().any():
            raise ValueError("a row is not a number")
        return tiny_parts["unet"](latents, timesteps, condition).sample

    return {"unet": unet}


def sampling(request: dict[str, Any], spoil: bool = False) -> Process[Tensor]:
    """Guided sampling as a pipeline does it."""
    # v, since an untrained network's epsilon would be divided by the little signal of the first
    # steps: latents of fifty are rounded by more than the tolerance
    config = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    base = scheduler_named(request["scheduler"], config)
    scheduler = fresh_scheduler(base, request["steps"])
    generators = make_generators(request["seeds"])
    latents = draw_noise((4, 8, 8), generators) * scheduler.init_noise_sigma
    generator = torch.Generator().manual_seed(request["prompt"])
    condition = torch.randn(1, 5, 32, generator=generator).expand(len(latents), -1, -1)

    def predict(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
        times = timestep.expand(len(latents))
        return (yield ModelCall("unet", (latents * (torch.nan if spoil else 1), times, condition)))

    guided = classifier_free(predict, condition, torch.zeros(1, 5, 32), request["scale"])
    return (yield from denoise(latents, scheduler, guided, generators))


@settings(max_examples=12, deadline=None)
@given(requests=st.lists(REQUEST, min_size=1, max_size=5), max_rows=st.integers(1, 9))
def test_everybody_gets_in_company_what_they_get_alone(
    networks: Components, requests: list[dict[str, Any]], max_rows: int
) -> None:
    engine = Engine(networks, max_rows)
    tickets: dict[int, Any] = {}
    for now in range(5):
        for i, request in enumerate(requests):
            if request["joins"] == now:
                tickets[i] = engine.submit(sampling(request, request["end"] == "fail"))
        engine.step()
    for i, request in enumerate(requests):
        if request["end"] == "cancel" and not tickets[i].done():
            tickets[i].cancel()
    engine.drain()
    for i, request in enumerate(requests):
        if request["end"] == "fail":
            with pytest.raises(ValueError, match="not a number"):
                tickets[i].result()
        elif request["end"] == "cancel" and tickets[i].cancelled:
            with pytest.raises(ProcessCancelled):
                tickets[i].result()
        else:
            alone = run(sampling(request), networks)
            assert (tickets[i].result() - alone).abs().max() <= TOLERANCE


def counting(num_calls: int, rows: int = 1) -> Process[int]:
    """A process of so many calls."""
    total = 0.0
    for _ in range(num_calls):
        total += float((yield ModelCall("add", (torch.ones(rows),))).sum())
    return int(total)


def adder(sizes: list[int]) -> Components:
    """A component that notes the size of every forward."""

    def add(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return rows

    return {"add": add}


def test_a_huge_call_does_not_starve_a_small_one() -> None:
    engine = Engine(adder([]), max_rows=4)
    huge, small = engine.submit(counting(1, rows=100)), engine.submit(counting(3))
    for _ in range(3):
        engine.step()
    assert small.result() == 3
    assert not huge.done()
    engine.drain()
    assert huge.result() == 100


def test_work_nobody_waits_for_goes_last_but_goes_on() -> None:
    engine = Engine(adder([]), max_rows=4)
    live = [engine.submit(counting(20, rows=4)) for _ in range(2)]
    batch = engine.submit(counting(1, rows=5), BATCH)
    while not batch.done():
        engine.step()
    assert batch.result() == 5
    assert not all(ticket.done() for ticket in live)
    engine.drain()
    assert [ticket.result() for ticket in live] == [80, 80]


def test_forwards_come_in_powers_of_two_up_to_the_budget() -> None:
    sizes: list[int] = []
    engine = Engine(adder(sizes), max_rows=6)
    for count in (3, 5):
        engine.submit(counting(1, rows=count))
        engine.drain()
    assert sizes == [4, 6]


@given(wanted=st.lists(st.integers(1, 40), min_size=1, max_size=12), budget=st.integers(1, 40))
def test_rows_are_shared_max_min_fairly(wanted: list[int], budget: int) -> None:
    shares = fair_shares(wanted, budget)
    assert sum(shares) == min(budget, sum(wanted))
    assert all(share <= wish for share, wish in zip(shares, wanted, strict=True))
    num_served = sum(share > 0 for share in shares)
    assert all(share == 0 for share in shares[num_served:])  # the first ones go first
    cut = [
        share
        for share, wish in list(zip(shares, wanted, strict=True))[: num_served - 1]
        if share < wish
    ]
    assert not cut or (max(shares) <= min(cut) + 1 and min(cut) >= min(FEWEST_ROWS, budget))


def test_a_cancelled_process_runs_its_clean_up_and_has_no_result() -> None:
    closed = []

    def process() -> Process[None]:
        try:
            yield ModelCall("add", (torch.ones(1),))
            yield ModelCall("add", (torch.ones(1),))
        finally:
            closed.append(True)

    engine = Engine(adder([]))
    ticket = engine.submit(process())
    engine.step()
    ticket.cancel()
    assert not engine.step()
    assert closed == [True]
    assert ticket.steps_done == 1
    with pytest.raises(ProcessCancelled, match="submit it anew"):
        ticket.result()


def test_a_result_is_not_given_before_it_is_there() -> None:
    ticket = Engine(adder([])).submit(counting(1))
    with pytest.raises(InvalidInput, match="not done"):
        ticket.result()


def test_a_component_that_drops_rows_or_is_unknown_is_an_error() -> None:
    with pytest.raises(MedphantomError, match="was given 2 rows and answered"):
        run(counting(1, rows=2), {"add": lambda rows: rows[:1]})
    with pytest.raises(InvalidInput, match="component is 'add', but the engine has only: unet"):
        run(counting(1), {"unet": lambda rows: rows})


@pytest.mark.parametrize("alone", [True, False])
def test_gradients_are_recorded_only_for_calls_that_ask(alone: bool) -> None:
    weight = torch.tensor(2.0, requires_grad=True)

    def process(needs_grad: bool) -> Process[bool]:
        answer = yield ModelCall("times", (torch.ones(2),), needs_grad=needs_grad)
        return answer.requires_grad

    components = {"times": lambda rows: rows * weight}
    for needs_grad in (True, False):
        if alone:
            assert run(process(needs_grad), components) is needs_grad
        else:
            engine = Engine(components)
            ticket = engine.submit(process(needs_grad))
            engine.drain()
            assert ticket.result() is needs_grad


def test_an_exact_process_gets_the_same_bits_in_any_company() -> None:
    def rounded(rows: Tensor) -> Tensor:
        return rows + (0 if len(rows) >= 4 else 1e-6 * len(rows))  # small shapes round otherwise

    def process() -> Process[Tensor]:
        sample = torch.zeros(2)
        for _ in range(4):
            sample = yield ModelCall("round", (sample,))
        return sample

    results = []
    for company in range(4):
        engine = Engine({"round": rounded}, max_rows=8, exact_rows=4)
        ticket = engine.submit(process(), BATCH, exact=True)
        others = [engine.submit(process()) for _ in range(company)]
        engine.drain()
        results.append(ticket.result())
        assert all(other.done() for other in others)
    assert all(torch.equal(result, results[0]) for result in results)
    with pytest.raises(InvalidInput, match="exact_rows is 9"):
        Engine({}, max_rows=8, exact_rows=9)


def test_owners_share_evenly_however_much_one_of_them_wants() -> None:
    sizes: list[int] = []
    engine = Engine(adder(sizes), max_rows=8)
    greedy = [engine.submit(counting(50, rows=2), owner="greedy") for _ in range(30)]
    polite = engine.submit(counting(10, rows=2), owner="polite")
    for _ in range(10):
        engine.step()
    assert polite.result() == 20  # rides in every forward, as if alone
    assert sum(ticket.steps_done for ticket in greedy) == 30  # what polite leaves


def test_forwards_are_short_while_somebody_waits_beside_others() -> None:
    sizes: list[int] = []
    engine = Engine(adder(sizes), max_rows=8, shared_rows=4)
    job = [engine.submit(counting(3, rows=2), BATCH) for _ in range(4)]
    engine.step()
    live = engine.submit(counting(2, rows=2))
    engine.drain()
    assert live.result() == 4
    assert all(ticket.result() == 6 for ticket in job)
    assert sizes == [8, 4, 4, 8, 4]  # two of them shared


def test_a_guided_call_is_served_whole() -> None:
    engine = Engine(adder([]), max_rows=4)
    tickets = [engine.submit(counting(1, rows=2)) for _ in range(4)]
    engine.step()
    assert [ticket.done() for ticket in tickets] == [True, True, False, False]


def test_forwards_are_reported() -> None:
    seen: list[tuple[str, int]] = []
    engine = Engine(adder([]), 4, on_forward=lambda name, rows, seconds: seen.append((name, rows)))
    engine.submit(counting(1, rows=3))
    assert engine.num_live == 1
    engine.drain()
    assert (seen, engine.num_live) == ([("add", 4)], 0)
