"""The vocabulary of sampling: processes, the calls they make, and the networks that answer."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor

from gen.errors import InvalidInput

T = TypeVar("T")


@dataclass(frozen=True)
class ModelCall:
    """A network call that a process yields; it is sent the answer, a tensor of N rows.

    Args:
        component: name of the network, such as "unet" or "decoder".
        rows: the network's arguments, each (N, ...); row i of the answer may depend on row i of
            each only, since rows of other processes share the forward.
        needs_grad: run alone and recorded by autograd, so that the answer can be differentiated.
    """

    component: str
    rows: tuple[Tensor, ...]
    needs_grad: bool = False

    def __post_init__(self) -> None:
        counts = [len(row) if row.ndim else 0 for row in self.rows]
        if not counts or len(set(counts)) != 1 or counts[0] == 0:
            shapes = ", ".join(str(tuple(row.shape)) for row in self.rows) or "none"
            raise InvalidInput(
                f"the rows of a call to {self.component!r} have the shapes {shapes}, but all must "
                "share one first size of at least 1; expand the shorter ones"
            )

    @property
    def num_rows(self) -> int:
        """N, the number of independent rows."""
        return len(self.rows[0])


Process: TypeAlias = Generator[ModelCall, Tensor, T]
"""A sampling algorithm: yields the network calls it needs, is sent the answers, returns T.

It runs with autograd enabled, but must not hold a gradient mode open across a yield: that mode
belongs to the thread, and other processes run on it in between.
"""

Component: TypeAlias = Callable[..., Tensor]
"""A network called as `component(*rows)`; answers (N, ...)."""

Components: TypeAlias = Mapping[str, Component]

Predict: TypeAlias = Callable[[Tensor, Tensor], Process[Tensor]]
"""(latents (N, C, H, W), timestep ()) -> model output (N, C, H, W)."""

ConditionedPredict: TypeAlias = Callable[[Tensor, Tensor, Tensor], Process[Tensor]]
"""(latents (N, C, H, W), timestep (), condition (N, L, D)) -> model output (N, C, H, W)."""


class Scheduler(Protocol):
    """What sampling uses of a diffusers scheduler. It has state: one process owns it."""

    config: Any
    timesteps: Tensor
    init_noise_sigma: float | Tensor
    model_outputs: Any  # of multistep ones

    def set_timesteps(
        self, num_inference_steps: int, *, device: Any = None
    ) -> None: ...  # pragma: no cover

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, **noise: Any) -> Any: ...
