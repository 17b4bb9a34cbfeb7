"""Models in memory: loaded once, let go by age, never under somebody who uses them."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from gen.errors import Busy, InvalidInput, ModelRefused
from gen.store import catalogue
from jobs.model_pool import LoadedModel, ModelPool
from jobs.tasks import TASKS, Task

MODELS = ("a", "b", "c", "d")
MODEL_BYTES = 400  # ten by ten weights in single precision


class FakeTask:
    """Loads networks of `MODEL_BYTES`, "huge" excepted, and notes which."""

    def __init__(self, name: str = "FakePipeline") -> None:
        self.name = self.pipeline_name = name
        self.loads: list[str] = []
        self.loaded: list[Any] = []
        self.before_load: Callable[[], None] = lambda: None

    def load(self, model: str, device: torch.device, dtype: torch.dtype) -> Any:
        self.loads.append(model)
        self.before_load()
        if model == "broken":
            raise ModelRefused("its weights do not match its card")
        side = 20 if model == "huge" else 10
        network = torch.nn.Linear(side, side, bias=False, device=device, dtype=dtype)
        self.loaded.append(SimpleNamespace(components={"unet": network, "tokenizer": object()}))
        return self.loaded[-1]

    def networks(self, pipeline: Any) -> dict[str, Any]:
        return {"unet": pipeline.components["unet"]}


@pytest.fixture(autouse=True)
def _collect_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting takes half a second where torch and diffusers are loaded."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def task() -> FakeTask:
    """A task that loads next to nothing."""
    return FakeTask()


def pool(num_models: float | None = None, allowed: tuple[str, ...] = MODELS) -> ModelPool:
    """A pool with room for so many models."""
    max_bytes = None if num_models is None else int(num_models * MODEL_BYTES)
    return ModelPool(allowed, torch.device("cpu"), torch.float32, max_bytes)


def take(models: ModelPool, task: FakeTask, name: str) -> LoadedModel:
    return models.acquire(cast(Task, task), name)


def use(models: ModelPool, task: FakeTask, name: str) -> None:
    models.release(take(models, task, name))


def test_a_model_is_loaded_once_and_its_bytes_are_counted(task: FakeTask) -> None:
    models = pool()
    first, second = take(models, task, "a"), take(models, task, "a")
    assert first is second
    assert first.networks is second.networks  # calls share forwards by this object
    assert (task.loads, models.memory()) == (["a"], {"a": MODEL_BYTES})


def test_half_precision_takes_half_the_bytes(task: FakeTask) -> None:
    models = ModelPool(MODELS, torch.device("cpu"), torch.float16)
    use(models, task, "a")
    assert models.memory() == {"a": MODEL_BYTES // 2}


def test_the_least_recently_used_model_goes_first(task: FakeTask) -> None:
    models = pool(2)
    for name in ("a", "b", "a", "c"):
        use(models, task, name)
    assert models.memory() == {"a": MODEL_BYTES, "c": MODEL_BYTES}
    use(models, task, "a")
    use(models, task, "b")
    assert set(models.memory()) == {"a", "b"}
    assert task.loads == ["a", "b", "c", "b"]


def test_a_model_in_use_is_never_dropped_however_old(task: FakeTask) -> None:
    models = pool(2)
    used = take(models, task, "a")
    for name in ("b", "c", "d"):
        use(models, task, name)
    assert set(models.memory()) == {"a", "d"}
    assert take(models, task, "a") is used
    assert task.loads.count("a") == 1


def test_a_model_is_in_use_until_all_who_took_it_gave_it_back(task: FakeTask) -> None:
    models = pool(1)
    twice = [take(models, task, "a") for _ in range(2)]
    models.release(twice[0])
    with pytest.raises(Busy):
        take(models, task, "b")
    models.release(twice[1])
    use(models, task, "b")
    assert set(models.memory()) == {"b"}


def test_where_nothing_can_go_the_caller_is_told_to_come_back(task: FakeTask) -> None:
    models = pool(2)
    held = [take(models, task, name) for name in ("a", "b")]
    with pytest.raises(Busy, match="leave no room") as refusal:
        take(models, task, "c")
    assert refusal.value.reason == "memory"
    assert refusal.value.retry_after_s > 0
    assert models.memory() == {"a": MODEL_BYTES, "b": MODEL_BYTES}
    models.release(held[0])
    use(models, task, "c")
    assert set(models.memory()) == {"b", "c"}


def test_no_idle_model_is_dropped_in_vain(task: FakeTask) -> None:
    models = pool(4, (*MODELS, "huge"))
    take(models, task, "a")
    use(models, task, "b")
    with pytest.raises(Busy):
        take(models, task, "huge")  # as large as four
    assert set(models.memory()) == {"a", "b"}


def test_what_is_dropped_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # collect really
    models, task = pool(1), FakeTask()
    use(models, task, "a")
    pipeline = task.loaded.pop()
    pipeline.itself = pipeline  # they are full of cycles
    network = weakref.ref(pipeline.components["unet"])
    del pipeline
    assert network() is not None
    use(models, task, "b")
    assert network() is None


def test_a_model_that_can_never_fit_is_refused_and_drops_no_other(task: FakeTask) -> None:
    """Busy would have its jobs tried, and the model loaded, for ever."""
    models = pool(2, (*MODELS, "huge"))
    use(models, task, "a")
    with pytest.raises(ModelRefused, match="huge"):
        take(models, task, "huge")
    assert set(models.memory()) == {"a"}


def test_many_threads_wait_for_one_load(task: FakeTask) -> None:
    models = pool(1)
    task.before_load = lambda: time.sleep(0.05)
    barrier = threading.Barrier(8)

    def acquire(_: int) -> LoadedModel:
        barrier.wait()
        return take(models, task, "a")

    with ThreadPoolExecutor(8) as threads:
        loaded = list(threads.map(acquire, range(8)))
    assert task.loads == ["a"]
    assert len({id(each) for each in loaded}) == 1
    for each in loaded[:-1]:
        models.release(each)
    with pytest.raises(Busy):  # the eighth still uses it
        take(models, task, "b")


def test_a_loaded_model_is_given_while_another_one_loads(task: FakeTask) -> None:
    models = pool()
    use(models, task, "a")
    loading, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        loading.set()
        assert go_on.wait(20)

    task.before_load = wait
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(take, models, task, "b")
        assert loading.wait(20)
        use(models, task, "a")
        assert not slow.done()
        go_on.set()
        slow.result(20)


def test_a_load_that_fails_leaves_nothing_and_can_be_tried_again(task: FakeTask) -> None:
    models = pool(1, ("broken", "a"))
    for _ in range(2):
        with pytest.raises(ModelRefused, match="card"):
            take(models, task, "broken")
    assert models.memory() == {}
    use(models, task, "a")
    assert task.loads == ["broken", "broken", "a"]


def test_tasks_of_one_pipeline_share_its_model_and_others_do_not(task: FakeTask) -> None:
    models, same, other = pool(), FakeTask(), FakeTask("OtherPipeline")
    for each in (task, same, other):
        use(models, each, "a")
    assert (task.loads, same.loads, other.loads) == (["a"], [], ["a"])
    assert models.memory() == {"a": 2 * MODEL_BYTES}


def test_an_unknown_model_is_refused_without_a_look_at_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked(*_: Any, **__: Any) -> None:
        raise AssertionError("it was looked for")

    monkeypatch.setattr(catalogue, "resolve", looked)
    task = TASKS["text-to-cxr"]
    monkeypatch.setattr(type(task), "load", looked)
    for name in ("/etc/passwd", "../a", "hub/model", ""):
        with pytest.raises(InvalidInput, match="must be one of a, b"):
            pool(allowed=("a", "b")).acquire(task, name)
