"""The shape of a task: what may be asked, the items it falls into, and how each is made.

A spec is what a caller sends, an item is one result of it. The id of the request and the index of
the item decide its seed, so that doing it twice gives the same file.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.types import Component, Process
    from jobs.pacs.search import Instance
    from jobs.tasks.study import Study

ItemSpec = dict[str, Any]  # JSON
OnStep = Callable[[int, int, "Tensor"], None]
"""(steps done, of how many, estimate of the clean latents (1, c, h, w))."""


class Spec(BaseModel):
    """The root of what callers send; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | None = Field(
        None, min_length=1, max_length=200, description="One of GET /v1/models; null is the first"
    )
    previews: bool = Field(False, description="Send pictures of unfinished images among the events")


@dataclass(frozen=True)
class Made:
    """A file that an item became."""

    data: bytes
    media_type: str
    record: dict[str, Any]


class GivenUp(InvalidInput):
    """What was made is not wanted, so there is no file; `record` says what is known of it."""

    def __init__(self, message: str, record: dict[str, Any]) -> None:
        super().__init__(message)
        self.record = record


class Task(ABC):
    """One kind of work; it has no state, so one object serves everybody."""

    name: ClassVar[str]
    title: ClassVar[str]
    spec_type: ClassVar[type[Spec]]
    pipeline_name: ClassVar[str]  # tasks of one pipeline share its loaded models
    model_task: ClassVar[str]  # the `task` of the model cards that fit
    has_uploads: ClassVar[bool] = False  # reading a spec, and starting a process, takes long

    @abstractmethod
    def items(self, spec: Any, request_id: str) -> list[ItemSpec]:
        """What each result differs in; every number that was left open is settled here."""

    @abstractmethod
    def work(self, spec: Any) -> float:
        """Megapixel steps (rows x steps x pixels / 1e6) that a spec costs."""

    @abstractmethod
    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> Any:
        """The pipeline of a model."""

    @abstractmethod
    def networks(self, pipeline: Any) -> dict[str, "Component"]:
        """What the task's processes call, by name."""

    def extra_networks(self, pipeline: Any, spec: Any, item: ItemSpec) -> dict[str, "Component"]:
        """What an item calls beside `networks`; whatever has a name has it for all items."""
        del pipeline, spec, item
        return {}

    @abstractmethod
    def process(self, pipeline: Any, spec: Any, item: ItemSpec, on_step: OnStep) -> "Process[Any]":
        """How one item is made. Arguments are checked before the first step.

        Raises:
            InvalidInput: the model cannot do what the spec asks.
        """

    @abstractmethod
    def preview(self, pipeline: Any, latents: "Tensor") -> "Process[Tensor]":
        """Pixels (1, C, H, W) in [0, 1] of unfinished latents."""

    @abstractmethod
    def encode(
        self, pipeline: Any, spec: Any, item: ItemSpec, result: Any, settings: dict[str, Any]
    ) -> Made:
        """The file of what `process` returned; `settings` are put into its record."""

    @abstractmethod
    def warm_up(self) -> dict[str, Any]:
        """A spec, as JSON, of little work that calls what every model of the task has."""

    def picture(self, result: Any) -> "Tensor | None":
        """Pixels (1, 1, H, W) in [0, 1] of what `process` returned, for gates to look at.

        None says that there is no single grey picture.
        """
        del result
        return None

    def preview_png(self, pixels: "Tensor") -> bytes:
        """A small PNG of what `preview` returned; grey."""
        from gen.data.previews import preview_png

        return preview_png(pixels[0].float().mean(0).cpu().numpy())

    def study(self, spec: Any) -> "Study | None":
        """The study of a PACS that a spec names in place of pictures; it is a job then."""
        del spec
        return None

    def study_items(self, spec: Any, found: "Sequence[Instance]") -> list[ItemSpec]:
        """What `items` is of other specs: one for each picture of the study, its `instance`."""
        raise NotImplementedError(f"{self.name} takes no study")

    def detach(self, spec: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The spec as JSON, with digests for the files in it, and these files by their digests."""
        return spec.model_dump(mode="json"), {}

    def attach(self, spec: dict[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
        """Undo `detach`; `read` gives the file of a digest."""
        del read
        return spec

    def check_model(self, spec: Any) -> None:
        """Raise InvalidInput if the card of the spec's model says that it cannot do this."""
        del spec

    def check_one(self, spec: Any, media_type: str) -> None:
        """Raise InvalidInput unless the spec asks for a single file."""
        num_items = len(self.items(spec, ""))
        if num_items != 1:
            raise InvalidInput(
                f"{num_items} images are asked for, but {media_type} holds one; accept "
                "application/json, or ask for one image"
            )

    def check(self, value: Any) -> Any:
        """A spec from JSON; ValidationError if it breaks a rule."""
        return self.spec_type.model_validate(value)


def seed_of(request_id: str, index: int) -> int:
    """A seed below 2^31 that an item of a request always gets again."""
    digest = hashlib.sha256(f"{request_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
