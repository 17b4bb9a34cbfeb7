"""The models of one engine: loaded when asked for, the least recently used let go."""

import gc
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from gen.errors import Busy, InvalidInput, ModelRefused
from gen.types import Component
from jobs.tasks import Task

ModelKey = tuple[str, str]  # name of the task's pipeline, model


@dataclass
class LoadedModel:
    """A model in memory."""

    pipeline: Any
    networks: dict[str, Component]  # one object, so that its calls share forwards
    num_bytes: int
    users: int
    tasks: set[str]  # whose networks are among these


class ModelPool:
    """Loads pipelines of allowed models within a budget of memory. Any thread may use it.

    Args:
        allowed: what callers may name; nothing else is ever looked for.
        device, dtype: of the networks.
        max_bytes: of all weights together; None is no limit. While a model is loaded it comes on
            top of what is kept.
    """

    def __init__(
        self,
        allowed: tuple[str, ...],
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
    ) -> None:
        self.allowed = allowed
        self.device = device
        self.dtype = dtype
        self._max_bytes = max_bytes
        self._models: OrderedDict[ModelKey, LoadedModel] = OrderedDict()  # last used last
        self._lock = threading.Lock()  # of the table
        self._loading = threading.Lock()  # one at a time: two would need the memory of both
        self._adding = threading.Lock()  # of networks to a loaded model

    def acquire(self, task: Task, model: str) -> LoadedModel:
        """A model that stays loaded until `release`; loading it may take long.

        Raises:
            InvalidInput: the model is not one of `allowed`.
            Busy: the others fill the memory and are all in use.
            ModelRefused: it is larger than `max_bytes`; or see `gen.store.loading`.
        """
        if model not in self.allowed:
            raise InvalidInput(f"model is {model!r}, but must be one of {', '.join(self.allowed)}")
        key = (task.pipeline_name, model)
        if (found := self._found(key)) is not None:
            return self._with_networks(task, found)
        with self._loading:
            if (found := self._found(key)) is not None:
                return self._with_networks(task, found)
            pipeline = task.load(model, self.device, self.dtype)
            networks = task.networks(pipeline)
            loaded = LoadedModel(pipeline, networks, _num_bytes(pipeline), 1, {task.name})
            self._make_room(model, loaded.num_bytes)
            with self._lock:
                self._models[key] = loaded
            return loaded

    def release(self, loaded: LoadedModel) -> None:
        """Give back what `acquire` gave."""
        with self._lock:
            loaded.users -= 1

    def add(self, loaded: LoadedModel, networks: dict[str, Component]) -> None:
        """Let items of the model call these, too; a name that is there stays as it is."""
        with self._adding:
            for name, network in networks.items():
                loaded.networks.setdefault(name, network)

    def memory(self) -> dict[str, int]:
        """Bytes of each loaded model."""
        with self._lock:
            sizes: dict[str, int] = {}
            for (_, model), loaded in self._models.items():
                sizes[model] = sizes.get(model, 0) + loaded.num_bytes
            return sizes

    def _found(self, key: ModelKey) -> LoadedModel | None:
        with self._lock:
            loaded = self._models.get(key)
            if loaded is not None:
                loaded.users += 1
                self._models.move_to_end(key)
            return loaded

    def _with_networks(self, task: Task, loaded: LoadedModel) -> LoadedModel:
        """What another task of the pipeline calls may be more than what the first one did."""
        if task.name in loaded.tasks:
            return loaded
        try:
            self.add(loaded, task.networks(loaded.pipeline))
            loaded.tasks.add(task.name)
        except Exception:
            self.release(loaded)
            raise
        return loaded

    def _make_room(self, model: str, num_bytes: int) -> None:
        """Drop idle models, the least recently used first, but none in vain."""
        if self._max_bytes is None:
            return
        if num_bytes > self._max_bytes:
            raise ModelRefused(
                f"model {model!r} takes {num_bytes / 1e6:.0f} MB, but all models together may "
                f"take {self._max_bytes / 1e6:.0f} MB; serve it with more memory"
            )
        with self._lock:
            total = num_bytes + sum(each.num_bytes for each in self._models.values())
            idle = [key for key, each in self._models.items() if each.users == 0]
            if total - sum(self._models[key].num_bytes for key in idle) > self._max_bytes:
                raise Busy(
                    f"the models in use leave no room for {model!r} within "
                    f"{self._max_bytes / 1e6:.0f} MB; try again when they are idle",
                    retry_after_s=10,
                    reason="memory",
                )
            for key in idle:
                if total > self._max_bytes:
                    total -= self._models.pop(key).num_bytes
        gc.collect()  # networks are full of cycles
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _num_bytes(pipeline: Any) -> int:
    networks = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    tensors = [t for net in networks for t in (*net.parameters(), *net.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
