"""Makes the items of requests and jobs with one engine: all of them share its forwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

from torch import Tensor

from gen.engine import Engine, OnForward
from gen.errors import InvalidInput, MedphantomError, ModelRefused
from jobs.engine_loop import EngineLoop
from jobs.model_pool import LoadedModel, ModelPool
from jobs.row_budget import RowBudget
from jobs.tasks import TASKS
from jobs.tasks.task import GivenUp, ItemSpec, Made, Task
from jobs.work import Done, Failed, News, Preview, Started, Step, Work

PREVIEW_S = 1.0  # a preview costs a decoder row


class Executor:
    """One engine, its thread and its models.

    Args:
        pool: where models come from.
        rows: of the engine's forwards.
        on_forward: told of every forward.
        on_wait: told (priority, seconds) how long each item waited for its first forward.
    """

    def __init__(
        self,
        pool: ModelPool,
        rows: RowBudget,
        on_forward: OnForward = lambda *_: None,
        on_wait: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        self.pool = pool
        self.rows = rows
        self._on_wait = on_wait
        self._loop = EngineLoop(
            Engine(
                {},
                rows.max_rows,
                pad_rows=pool.device.type != "cpu",  # a CPU compiles nothing, and pays for rows
                exact_rows=rows.exact_rows,
                shared_rows=rows.shared_rows,
                on_forward=on_forward,
            )
        )
        self._requests: dict[Future[Any], str] = {}  # of what runs; two threads change it
        self._closing = False

    @property
    def num_live(self) -> int:
        """Processes under way."""
        return self._loop.num_live

    def seconds_stalled(self) -> float:
        """See `EngineLoop.seconds_stalled`."""
        return self._loop.seconds_stalled()

    def close(self, drain_s: float = 0.0) -> None:
        """Let what runs finish for so long, then stop it; its requests end with an error."""
        self._closing = True
        self._loop.close(drain_s)

    def cancel(self, request_id: str) -> int:
        """Stop the processes of a request at the next step; how many those were."""
        running = list(self._requests.items())
        return sum(future.cancel() for future, request in running if request == request_id)

    async def run(self, work: Work) -> AsyncIterator[News]:
        """Make the items side by side; tell of each as it goes on.

        Closing the iterator stops what is not done.

        Raises:
            InvalidInput, ModelRefused, Busy: nothing of the request can be made (now).
        """
        task = TASKS[work.task]
        spec = await _read(task, task.check, work.spec)
        news: asyncio.Queue[News] = asyncio.Queue()
        model = await self._acquire(task, spec.model)
        making = [
            asyncio.create_task(
                _Making(self, task, work, spec, index, item, model, news.put_nowait).make()
            )
            for index, item in work.items.items()
        ]
        try:
            num_left = len(making)
            while num_left:
                each = await news.get()
                if self._closing and isinstance(each, Failed):
                    raise MedphantomError("the engine is closing; send the work to another")
                num_left -= isinstance(each, Done | Failed)
                yield each
        finally:
            for one in making:
                one.cancel()
            await asyncio.gather(*making, return_exceptions=True)
            self.pool.release(model)

    async def _acquire(self, task: Task, name: str) -> LoadedModel:
        """`ModelPool.acquire` in a thread; given back if nobody waits for it any more."""
        acquiring = asyncio.ensure_future(asyncio.to_thread(self.pool.acquire, task, name))
        try:
            return await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            acquiring.add_done_callback(self._give_back)
            raise

    def _give_back(self, acquired: "asyncio.Future[LoadedModel]") -> None:
        if not acquired.cancelled() and acquired.exception() is None:
            self.pool.release(acquired.result())

    def submit(
        self, work: Work, process: Any, model: LoadedModel, exact: bool = False
    ) -> "Future[Any]":
        """Let a process of a request join the engine."""
        future = self._loop.submit(
            process,
            work.priority,
            owner=work.owner,
            exact=exact,
            components=model.networks,
            waited=lambda seconds: self._on_wait(work.priority, seconds),
        )
        self._requests[future] = work.request_id
        future.add_done_callback(self._requests.pop)
        return future


class _Making:
    """One item on its way; everything here but `_on_step` is on the event loop."""

    def __init__(
        self,
        executor: Executor,
        task: Task,
        work: Work,
        spec: Any,
        index: int,
        item: ItemSpec,
        model: LoadedModel,
        tell: Callable[[News], None],
    ) -> None:
        self.executor = executor
        self.task = task
        self.work = work
        self.spec = spec
        self.index = index
        self.item = item
        self.model = model
        self.tell = tell
        self.loop = asyncio.get_running_loop()
        self.told = 0.0  # when the last step was
        self.previewed = time.monotonic()
        self.previews: set[asyncio.Task[None]] = set()

    async def make(self) -> None:
        """Tell of the item's start, steps and end."""
        try:
            process = await _read(self.task, self._process)
            self.tell(Started(self.index))
            future = self.executor.submit(self.work, process, self.model, self.work.exact)
            result = await asyncio.wrap_future(future)
            made = await asyncio.to_thread(self._encode, result)
            self.tell(Done(self.index, made))
        except GivenUp as error:
            self.tell(Failed(self.index, str(error), retry=False, record=error.record))
        except (InvalidInput, ModelRefused) as error:
            self.tell(Failed(self.index, str(error), retry=False))
        except asyncio.CancelledError:
            # by its owner, who no longer listens, or by `Executor.cancel`
            self.tell(Failed(self.index, "it was cancelled", retry=False))
            raise
        except Exception as error:
            # the message of a foreign error may quote what it choked on
            self.tell(Failed(self.index, f"{type(error).__name__} while sampling", retry=True))
        finally:
            for preview in self.previews:
                preview.cancel()

    def _process(self) -> Any:
        made_of = (self.model.pipeline, self.spec, self.item)
        self.executor.pool.add(self.model, self.task.extra_networks(*made_of))
        return self.task.process(*made_of, self._on_step)

    def _encode(self, result: Any) -> Made:
        rows = self.executor.rows
        settings = {"forward_rows": rows.exact_rows} if self.work.exact else {}
        return self.task.encode(self.model.pipeline, self.spec, self.item, result, settings)

    def _on_step(self, step: int, num_steps: int, latents: Tensor) -> None:
        """In the engine's thread: pass the step on, unless it comes too soon after another."""
        if self.work.step_s is None:
            return
        now = time.monotonic()
        if now - self.told >= self.work.step_s or step == num_steps:
            self.told = now
            self._pass_on(self.tell, Step(self.index, step, num_steps))
        if self.spec.previews and now - self.previewed >= PREVIEW_S and step < num_steps:
            self.previewed = now
            self._pass_on(self._start_preview, step, num_steps, latents.clone())

    def _pass_on(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the event loop is gone, and with it whoever listened
            return

    def _start_preview(self, step: int, num_steps: int, latents: Tensor) -> None:
        if not self.previews:  # the last one is still under way: skip this one
            preview = asyncio.create_task(self._preview(step, num_steps, latents))
            self.previews.add(preview)
            preview.add_done_callback(self.previews.discard)

    async def _preview(self, step: int, num_steps: int, latents: Tensor) -> None:
        process = self.task.preview(self.model.pipeline, latents)
        try:
            future = self.executor.submit(self.work, process, self.model)
            pixels = await asyncio.wrap_future(future)
            png = await asyncio.to_thread(self.task.preview_png, pixels)
            self.tell(Preview(self.index, step, num_steps, png))
        except Exception:
            return  # the image itself is what matters


async def _read(task: Task, call: Callable[..., Any], *args: Any) -> Any:
    """Call what reads a spec, in a thread if there may be pictures in it to decode."""
    return await asyncio.to_thread(call, *args) if task.has_uploads else call(*args)
