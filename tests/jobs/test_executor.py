"""Requests side by side on one engine: shared forwards, equal images, failures kept apart."""

import asyncio
import gc
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from gen.errors import InvalidInput, MedphantomError
from gen.sharing import BATCH, LIVE
from jobs import executor as executor_module
from jobs.executor import Executor
from jobs.model_pool import LoadedModel, ModelPool
from jobs.row_budget import measure_rows
from jobs.tasks import TASKS
from jobs.tasks.text_to_cxr import SchedulerName
from jobs.work import Done, Failed, News, Preview, Started, Step, Work

T = TypeVar("T")
PROMPT = "canary" + "-7f3a chest"  # put together here, so that no source line in a log has it
ROUGH = 4  # a device may round so that it shows below so many rows
LIMIT_S = 60  # never waited for unless something is broken


@pytest.fixture(scope="module")
def pool(tiny_model: str) -> ModelPool:
    """The tiny model, loaded once for all tests."""
    return ModelPool((tiny_model,), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(pool: ModelPool) -> LoadedModel:
    """The tiny model in memory."""
    return pool.acquire(TASKS["text-to-cxr"], pool.allowed[0])


class Forwards(list[tuple[str, int]]):
    """Component and rows of every forward."""

    def of(self, component: str) -> list[int]:
        return [rows for name, rows in self if name == component]


@pytest.fixture(scope="module")
def shared(pool: ModelPool, model: LoadedModel) -> Iterator[Executor]:
    """An executor with the row budget that was measured here."""
    task = TASKS["text-to-cxr"]
    spec = task.check({"prompt": "a", "num_inference_steps": 2})
    process = task.process(model.pipeline, spec, task.items(spec, "")[0], lambda *_: None)
    rows = measure_rows(process, model.networks, pool.device, max_rows=8)
    executor = Executor(pool, replace(rows, exact_rows=max(ROUGH, rows.exact_rows)))
    yield executor
    executor.close()


@pytest.fixture
def forwards() -> Forwards:
    """What `executor` was told."""
    return Forwards()


@pytest.fixture
def executor(pool: ModelPool, shared: Executor, forwards: Forwards) -> Iterator[Executor]:
    """An executor of the test's own."""
    executor = Executor(pool, shared.rows, lambda name, rows, _: forwards.append((name, rows)))
    yield executor
    executor.close()


def work(
    executor: Executor,
    request_id: str = "r",
    *,
    priority: int = LIVE,
    exact: bool = False,
    step_s: float | None = None,
    **spec: Any,
) -> Work:
    """One request; by default of one image of two steps."""
    task = TASKS["text-to-cxr"]
    fields = {"prompt": PROMPT, "num_inference_steps": 2, "seed": 7, **spec}
    checked = task.check({"model": executor.pool.allowed[0], **fields})
    return Work(
        task=task.name,
        request_id=request_id,
        owner="ann",
        spec=checked.model_dump(mode="json"),
        items=dict(enumerate(task.items(checked, request_id))),
        priority=priority,
        exact=exact,
        step_s=step_s,
    )


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT_S))


async def news_of(executor: Executor, asked: Work) -> list[News]:
    return [each async for each in executor.run(asked)]


async def together(executor: Executor, *asked: Work) -> list[list[News]]:
    return list(await asyncio.gather(*(news_of(executor, each) for each in asked)))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def files(news: list[News]) -> list[bytes]:
    """Of the items, in their order; all must be done."""
    ends = sorted((n for n in news if isinstance(n, Done | Failed)), key=lambda end: end.index)
    return [cast(Done, end).made.data for end in ends]


def kinds(news: list[News], kind: type[T]) -> list[T]:
    return [each for each in news if isinstance(each, kind)]


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)), dtype=int)


class Gate:
    """Around a network: says when a forward is under way, and answers when it may."""

    def __init__(self, network: Callable[..., Tensor]) -> None:
        self.network = network
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *rows: Tensor) -> Tensor:
        self.entered.set()
        assert self.opened.wait(LIMIT_S)
        return self.network(*rows)


def test_requests_share_forwards_and_get_the_images_they_get_alone(
    executor: Executor,
    forwards: Forwards,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [
        work(executor, f"r{i}", seed=i, num_inference_steps=4, guidance_scale=1.0 + i)
        for i in range(4)
    ]
    alone = [files(run(news_of(executor, each)))[0] for each in asked]
    alone_forwards = len(forwards.of("unet"))
    assert alone_forwards == 16
    assert max(forwards.of("unet")) == 2
    forwards.clear()
    gate = Gate(model.networks["text_encoder"])
    monkeypatch.setitem(model.networks, "text_encoder", gate)

    async def crowd() -> list[list[News]]:
        running = asyncio.ensure_future(together(executor, *asked))
        await until(lambda: executor.num_live == 4)
        gate.opened.set()
        return await running

    shared_news = run(crowd())
    assert len(forwards.of("unet")) < alone_forwards / 2
    assert max(forwards.of("unet")) == 7  # one has no guidance; on a CPU nothing is padded
    for news, image in zip(shared_news, alone, strict=True):
        assert np.abs(pixels(files(news)[0]) - pixels(image)).max() <= 1


COMPANY = st.lists(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 99),
            "num_inference_steps": st.integers(1, 5),
            "guidance_scale": st.sampled_from([1.0, 3.0]),
            "n": st.integers(1, 3),
            "priority": st.sampled_from([LIVE, BATCH]),
            "exact": st.booleans(),
            "scheduler": st.sampled_from(["dpm++", "euler-a"]),
        }
    ),
    max_size=4,
)


@settings(max_examples=8, deadline=None)
@given(company=COMPANY, place=st.integers(0, 4))
def test_exact_work_gives_the_same_bytes_in_any_company(
    shared: Executor, model: LoadedModel, company: list[dict[str, Any]], place: int
) -> None:
    unet = model.networks["unet"]

    def rough(latents: Tensor, *more: Tensor) -> Tensor:
        return unet(latents, *more) + (0.1 * len(latents) if len(latents) < ROUGH else 0)

    mine = work(shared, "mine", priority=BATCH, exact=True, num_inference_steps=4)
    asked = [work(shared, f"r{i}", **fields) for i, fields in enumerate(company)]
    asked.insert(place, mine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.networks, "unet", rough)
        (alone,) = files(run(news_of(shared, mine)))
        news = run(together(shared, *asked))[min(place, len(company))]
        (inexact,) = files(run(news_of(shared, replace(mine, exact=False))))
    assert files(news) == [alone]
    assert np.abs(pixels(inexact) - pixels(alone)).max() > 1


def test_an_exact_file_says_with_how_many_rows_it_can_be_made_again(executor: Executor) -> None:
    settings_of = [
        kinds(run(news_of(executor, work(executor, exact=exact))), Done)[0].made.record["settings"]
        for exact in (True, False)
    ]
    assert settings_of[0]["forward_rows"] == executor.rows.exact_rows
    assert "forward_rows" not in settings_of[1]


def test_every_item_is_told_of_once_from_start_to_end(executor: Executor) -> None:
    news = run(news_of(executor, work(executor, n=3, step_s=0, num_inference_steps=3)))
    for index in range(3):
        mine = [each for each in news if each.index == index]
        assert [type(each) for each in mine] == [Started, Step, Step, Step, Done]
        assert [each.step for each in kinds(mine, Step)] == [1, 2, 3]
    seeds = {each.index: each.made.record["seed"] for each in kinds(news, Done)}
    assert seeds == {0: 7, 1: 8, 2: 9}


def test_steps_are_told_no_more_often_than_asked_but_the_last_one_always(
    executor: Executor,
) -> None:
    assert not kinds(run(news_of(executor, work(executor))), Step)
    news = run(news_of(executor, work(executor, step_s=1e9, num_inference_steps=20)))
    assert [each.step for each in kinds(news, Step)] == [20]


@pytest.mark.parametrize("scheduler", SchedulerName)
def test_steps_count_up_to_their_number_with_any_scheduler(
    executor: Executor, scheduler: SchedulerName
) -> None:
    news = run(
        news_of(executor, work(executor, step_s=0, scheduler=scheduler, num_inference_steps=4))
    )
    steps = kinds(news, Step)
    assert len({each.num_steps for each in steps}) == 1
    assert [each.step for each in steps] == list(range(1, steps[0].num_steps + 1))
    assert isinstance(news[-1], Done)


def test_closing_the_iterator_stops_the_work(executor: Executor, forwards: Forwards) -> None:
    async def leave() -> None:
        asked = work(executor, n=3, num_inference_steps=200, step_s=0)
        async with aclosing(cast(Any, executor.run(asked))) as news:
            async for each in news:
                if isinstance(each, Step):
                    break
            assert executor.num_live == 3
        await until(lambda: executor.num_live == 0)

    run(leave())
    assert len(forwards.of("unet")) < 3 * 200
    assert not forwards.of("decoder")


def test_a_cancelled_caller_stops_the_work(executor: Executor, forwards: Forwards) -> None:
    async def leave() -> None:
        caller = asyncio.create_task(
            news_of(executor, work(executor, n=3, num_inference_steps=200))
        )
        await until(lambda: len(forwards.of("unet")) > 2)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await until(lambda: executor.num_live == 0)

    run(leave())
    assert not forwards.of("decoder")


def test_cancelling_a_request_stops_its_items_and_no_others(executor: Executor) -> None:
    async def cancel() -> tuple[list[News], list[News]]:
        asked = [
            work(executor, "stop", n=3, num_inference_steps=200),
            work(executor, "go", n=2, num_inference_steps=10),
        ]
        running = asyncio.ensure_future(together(executor, *asked))
        await until(lambda: executor.num_live == 5)
        assert executor.cancel("nobody's") == 0
        assert executor.cancel("stop") == 3
        stopped, gone_on = await running
        assert executor.cancel("stop") == 0
        return stopped, gone_on

    stopped, gone_on = run(cancel())
    ends = kinds(stopped, Failed)
    assert {each.index for each in ends} == {0, 1, 2}
    assert {(each.reason, each.retry) for each in ends} == {("it was cancelled", False)}
    assert len(kinds(gone_on, Done)) == 2


def test_items_of_one_job_come_one_by_one_and_are_all_cancelled(executor: Executor) -> None:
    """A worker asks for each item by itself; they share the job's id."""

    async def cancel() -> list[list[News]]:
        await news_of(executor, work(executor, "job"))  # one is done already
        long = work(executor, "job", num_inference_steps=200)
        running = asyncio.ensure_future(together(executor, long, long))
        await until(lambda: executor.num_live == 2)
        assert executor.cancel("job") == 2
        return await running

    assert all(isinstance(news[-1], Failed) for news in run(cancel()))


def test_an_impossible_size_fails_with_its_reason_beside_others_that_go_on(
    executor: Executor,
) -> None:
    bad, good = run(together(executor, work(executor, "bad", width=33), work(executor, "good")))
    (failed,) = bad
    assert isinstance(failed, Failed)
    assert "width is 33, but must be a multiple of 4" in failed.reason
    assert PROMPT not in failed.reason
    assert not failed.retry
    assert isinstance(good[-1], Done)


def test_a_row_that_chokes_a_network_fails_alone_and_its_text_is_not_told(
    executor: Executor,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = model.pipeline.tokenizer
    poison = tokenizer(PROMPT, padding="max_length", max_length=16, return_tensors="pt").input_ids
    encode = model.networks["text_encoder"]

    def picky(tokens: Tensor) -> Tensor:
        if (tokens == poison).all(1).any():
            raise ValueError(f"choked on {PROMPT}")
        return encode(tokens)

    monkeypatch.setitem(model.networks, "text_encoder", picky)
    prompts = ["a chest", PROMPT, "a child"]
    mixed, other = run(
        together(
            executor,
            work(executor, "mixed", prompt=prompts, seed=[1, 2, 3]),
            work(executor, "other", prompt="no acute finding"),
        )
    )
    (failed,) = kinds(mixed, Failed)
    assert failed == Failed(1, "ValueError while sampling", retry=True)
    assert {each.index for each in kinds(mixed, Done)} == {0, 2}
    assert isinstance(other[-1], Done)
    assert PROMPT not in caplog.text


def test_previews_come_before_the_end_if_asked(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "PREVIEW_S", 0)
    asked = work(executor, step_s=0, previews=True, num_inference_steps=30)
    news = run(news_of(executor, asked))
    previews = kinds(news, Preview)
    assert previews
    assert isinstance(news[-1], Done)
    assert all(each.index == 0 and 0 < each.step < 30 == each.num_steps for each in previews)
    first, last, end = map(pixels, (previews[0].png, previews[-1].png, files(news)[0]))
    assert np.abs(last - end).mean() < 1 < np.abs(first - end).mean()  # it forms
    (plain,) = files(run(news_of(executor, work(executor, num_inference_steps=30))))
    assert np.abs(pixels(files(news)[0]) - pixels(plain)).max() <= 1  # looking changes nothing
    without = run(news_of(executor, work(executor, step_s=0, num_inference_steps=30)))
    assert not kinds(without, Preview)


def test_a_preview_that_fails_is_left_out_and_not_logged(
    executor: Executor,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(executor_module, "PREVIEW_S", 0)
    decode, failures = model.networks["decoder"], []

    def choke_once(latents: Tensor) -> Tensor:
        if not failures:
            failures.append("a preview")
            raise ValueError(f"choked on {PROMPT}")
        return decode(latents)

    monkeypatch.setitem(model.networks, "decoder", choke_once)
    asked = work(executor, step_s=0, previews=True, num_inference_steps=30)
    with caplog.at_level(logging.DEBUG):
        news = run(news_of(executor, asked))
        gc.collect()  # a task whose exception nobody took is logged when it goes
    assert failures
    assert isinstance(news[-1], Done)
    assert PROMPT not in caplog.text


def test_nothing_of_an_unknown_model_is_begun(executor: Executor) -> None:
    with pytest.raises(InvalidInput, match="must be one of"):
        run(news_of(executor, work(executor, model="other")))
    assert executor.num_live == 0


def test_a_closed_executor_refuses_work(executor: Executor, model: LoadedModel) -> None:
    users = model.users
    executor.close()
    with pytest.raises(MedphantomError, match="closing"):
        run(news_of(executor, work(executor)))
    assert model.users == users


def test_closing_ends_what_runs_with_an_error_not_with_failed_items(executor: Executor) -> None:
    """So that a job's item goes to another replica, and is not given up."""

    async def close() -> list[News]:
        news: list[News] = []
        stream: AsyncIterator[News] = executor.run(work(executor, num_inference_steps=200))
        news.append(await anext(stream))
        await until(lambda: executor.num_live == 1)
        await asyncio.to_thread(executor.close)
        with pytest.raises(MedphantomError, match="closing"):
            news += [each async for each in stream]
        return news

    assert run(close()) == [Started(0)]


def test_draining_lets_requests_finish(executor: Executor, forwards: Forwards) -> None:
    async def drain() -> list[News]:
        running = asyncio.create_task(news_of(executor, work(executor, num_inference_steps=20)))
        await until(lambda: bool(forwards))
        await asyncio.to_thread(executor.close, LIMIT_S)
        return await running

    assert isinstance(run(drain())[-1], Done)


def test_a_model_is_given_back_whatever_becomes_of_the_request(
    executor: Executor, model: LoadedModel
) -> None:
    users = model.users
    for asked in (work(executor), work(executor, width=33)):
        run(news_of(executor, asked))
    assert model.users == users


def test_a_caller_who_leaves_while_its_model_loads_does_not_keep_it(
    executor: Executor,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading, loaded = threading.Event(), threading.Event()
    acquire, users = executor.pool.acquire, model.users

    def slowly(*args: Any) -> LoadedModel:
        loading.set()
        assert loaded.wait(LIMIT_S)
        return acquire(*args)

    monkeypatch.setattr(executor.pool, "acquire", slowly)

    async def leave() -> None:
        caller = asyncio.create_task(news_of(executor, work(executor)))
        await until(loading.is_set)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        loaded.set()
        released: list[LoadedModel] = []
        monkeypatch.setattr(executor.pool, "release", released.append)
        await until(lambda: bool(released))

    run(leave())
    assert model.users == users + 1  # taken, and given back to our list
    model.users -= 1


def test_waits_are_told_with_their_priority(pool: ModelPool, shared: Executor) -> None:
    waits: list[tuple[int, float]] = []
    executor = Executor(pool, shared.rows, on_wait=lambda *wait: waits.append(wait))
    try:
        run(together(executor, work(executor, n=2), work(executor, "b", priority=BATCH)))
    finally:
        executor.close()
    assert sorted(priority for priority, _ in waits) == [LIVE, LIVE, BATCH]
    assert all(0 <= seconds < LIMIT_S for _, seconds in waits)


def test_a_loop_that_ends_while_a_model_loads_logs_no_error(
    executor: Executor,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def slowly(*_: Any) -> LoadedModel:
        loading.set()
        assert loaded.wait(LIMIT_S)
        return model

    monkeypatch.setattr(executor.pool, "acquire", slowly)

    async def leave() -> None:
        caller = asyncio.create_task(news_of(executor, work(executor)))
        await until(loading.is_set)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        asyncio.get_running_loop().call_later(0.05, loaded.set)

    threading.Timer(0.1, loaded.set).start()
    run(leave())
    assert not caplog.records
