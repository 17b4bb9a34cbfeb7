"""Data sets of configured stores: another task over the rows of a manifest, as gates allow.

The spec is that of `medphantom jobs run`, of which the service keeps the results. Items, seeds and
records are those of the runner, too.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from gen.errors import InvalidInput
from jobs.data_stores import is_named
from jobs.device import Precision
from jobs.runner.spec import JobFields, JobSpec
from jobs.tasks.task import GivenUp, ItemSpec, Made, OnStep, Spec, Task

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.gates.gate import Gate
    from gen.gates.gated import Gated
    from gen.types import Component, Process
    from jobs.runner.making import Attempt, Making
    from pipelines.text_to_cxr import TextToCXRPipeline

MAX_ITEMS = 10_000
NAMED = "must name a data set of a configured store, as lab:cxr; no path or URL is taken"
EMBEDDED = {
    "copies": ("encoder", "cxr-encoder-mini"),
    "labels": ("classifier", "cxr-classifier-mini"),
}
_loading = threading.Lock()


class DataSetSpec(JobFields, Spec):
    """A data set job of the service: that of `medphantom jobs run`, without `out`."""

    task: Literal["generate", "augment", "anomaly"] = Field(
        description="What is made of each row: text to image, augmentation, or an anomaly map"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_kept_here(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "out" in given:
            raise ValueError("out is given, but the service keeps the results; leave it out")
        return given

    @model_validator(mode="after")
    def _names_stores(self) -> "DataSetSpec":
        if self.mixed_precision is not Precision.NO:
            raise ValueError("mixed_precision is given, but the service has its own; leave it out")
        for name in ("path", "root"):
            reference = getattr(self.manifest, name)
            if reference is not None and not is_named(reference):
                raise ValueError(f"manifest.{name} {NAMED}")
        return self

    @model_validator(mode="after")
    def _has_gates_of_ours(self) -> "DataSetSpec":
        from jobs.runner.judges import check_gates

        config = check_gates(self.as_job())
        if config is None:
            return self
        if not is_named(str((self.gates or {})["reference"])):
            raise ValueError(f"gates.reference {NAMED}")
        for gate, (field, model) in EMBEDDED.items():
            part = getattr(config, gate)
            if part is not None and getattr(part, field) != model:
                raise ValueError(f"gates.{gate}.{field} must be {model} in the service")
        return self

    def as_job(self, **manifest: str | None) -> JobSpec:
        """As the runner takes it; `manifest` replaces fields of that."""
        own = self.manifest.model_copy(update=manifest)
        fields = self.model_dump(exclude={"previews", "model", "manifest"})
        model = self.model or "cxr-mini"
        return JobSpec.model_validate({**fields, "model": model, "manifest": own, "out": "sink"})


@dataclass(frozen=True, eq=False)
class Judged:
    """How an item was made, and what came of its attempts."""

    making: "Making"
    found: "Gated[Attempt]"


class DataSet(Task):
    """A task over a manifest; its forwards are shared with live requests of that task.

    An item has `item`, a frozen one of the runner; `files`, the bytes it is made from; and `gates`,
    the folder of what these have learnt. The latter two are put in on the way to the engine.
    """

    name: ClassVar[str] = "data-set"
    title: ClassVar[str] = "Data sets of a store"
    spec_type: ClassVar[type[Spec]] = DataSetSpec
    pipeline_name: ClassVar[str] = "TextToCXRPipeline"
    model_task: ClassVar[str] = "text-to-image"
    has_uploads: ClassVar[bool] = True

    def items(self, spec: DataSetSpec, request_id: str) -> list[ItemSpec]:
        """Only the store of the data set knows: see `serve.data_sets`."""
        raise InvalidInput("a data set is a job; send it to POST /v1/jobs")

    def work(self, spec: DataSetSpec) -> float:
        """Of no item: see `jobs.runner.cost`."""
        return 0.0

    def warm_up(self) -> dict[str, Any]:
        """A spec that is never run."""
        return {"task": "generate", "manifest": {"path": "lab:prompts.csv"}}

    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> "TextToCXRPipeline":
        """The pipeline of all three tasks; its weights are hashed now."""
        from jobs.tasks.text_to_cxr import TextToCXR

        return TextToCXR().load(model, device, dtype)

    def networks(self, pipeline: "TextToCXRPipeline") -> dict[str, "Component"]:
        """What any of the tasks calls."""
        from jobs.tasks.anomaly_map import AnomalyMaps
        from jobs.tasks.augment import Augment

        return {**AnomalyMaps().networks(pipeline), **Augment().networks(pipeline)}

    def extra_networks(
        self, pipeline: "TextToCXRPipeline", spec: DataSetSpec, item: ItemSpec
    ) -> dict[str, "Component"]:
        """Those of the gates."""
        from gen.gates.gated import networks_of

        return networks_of(_gates(pipeline, spec, item))

    def process(
        self, pipeline: "TextToCXRPipeline", spec: DataSetSpec, item: ItemSpec, on_step: OnStep
    ) -> "Process[Judged]":
        """One item, attempt after attempt, its picture decoded now."""
        from jobs.runner.items import item_from
        from jobs.runner.making import making_of

        making = making_of(spec.as_job(), item_from(item["item"]), item.get("files", {}))
        process = making.process(pipeline, _gates(pipeline, spec, item), on_step)

        def run() -> "Process[Judged]":
            return Judged(making, (yield from process))

        return run()

    def preview(self, pipeline: "TextToCXRPipeline", latents: "Tensor") -> "Process[Tensor]":
        """What the picture is becoming."""
        return pipeline.decode(latents)

    def encode(
        self,
        pipeline: "TextToCXRPipeline",
        spec: DataSetSpec,
        item: ItemSpec,
        result: Judged,
        settings: dict[str, Any],
    ) -> Made:
        """The task's own file; the record is the sample's row, with all verdicts.

        Raises:
            GivenUp: no attempt passed the gates.
        """
        from jobs.runner.making import refusal

        making, found = result.making, result.found
        judged = making.judged(found).model_dump(mode="json")
        judged["taught"] = Path(item.get("gates", "")).name
        if found.result is None:
            raise GivenUp(refusal(found), {**judged, "synthetic": True})
        made = making.encode(pipeline, found, settings)
        verdicts = {} if spec.gates is None else {"judged": judged}
        return Made(made.data, made.media_type, {**making.meta(made, found), **verdicts})


def _gates(pipeline: "TextToCXRPipeline", spec: DataSetSpec, item: ItemSpec) -> "Sequence[Gate]":
    if spec.gates is None:
        return ()
    from jobs.gates.config import gates_config

    with _loading:
        text = gates_config(spec.gates).model_dump_json()
        return _loaded(text, item["gates"], str(pipeline.device))


@lru_cache(maxsize=4)
def _loaded(config: str, folder: str, device: str) -> "Sequence[Gate]":
    from jobs.gates.config import GatesConfig
    from jobs.gates.factory import load_gates

    return load_gates(GatesConfig.model_validate_json(config), Path(folder), device)
