"""A task of almost no work, to measure the runner itself: a convolution that settles noise."""

import io
import os
import signal
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from jobs.tasks.task import ItemSpec, Made, OnStep, Spec, Task, seed_of
from jobs.tasks.text_to_cxr import Seed, Sentence

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.types import Component, Process


class NullSpec(Spec):
    """One small picture of nothing."""

    prompt: Sentence = "nothing"
    num_inference_steps: int = Field(4, ge=1, le=10_000)
    side: int = Field(32, ge=8, le=1024)
    fatal: bool = Field(False, description="Kills its process, as a fault in a library would")
    seed: Seed | None = None


@dataclass
class NullPipeline:
    """One network of nine weights."""

    device: "torch.device"

    @cached_property
    def networks(self) -> "dict[str, Component]":
        """By name."""
        import torch

        network = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
        torch.nn.init.constant_(network.weight, -0.02)
        return {"unet": network.to(self.device).requires_grad_(False)}


class Null(Task):
    """Noise and a few steps."""

    name: ClassVar[str] = "null"
    title: ClassVar[str] = "Nothing, quickly"
    spec_type: ClassVar[type[Spec]] = NullSpec
    pipeline_name: ClassVar[str] = "NullPipeline"
    model_task: ClassVar[str] = "null"

    def items(self, spec: NullSpec, request_id: str) -> list[ItemSpec]:
        """One."""
        return [{"seed": seed_of(request_id, 0) if spec.seed is None else spec.seed}]

    def work(self, spec: NullSpec) -> float:
        """Of one row."""
        return spec.num_inference_steps * spec.side**2 / 1e6

    def warm_up(self) -> dict[str, Any]:
        """One step."""
        return {"num_inference_steps": 1}

    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> NullPipeline:
        """There is one model, and nothing to read."""
        return NullPipeline(device)

    def networks(self, pipeline: NullPipeline) -> "dict[str, Component]":
        """The convolution."""
        return pipeline.networks

    def process(
        self, pipeline: NullPipeline, spec: NullSpec, item: ItemSpec, on_step: OnStep
    ) -> "Process[tuple[Tensor]]":
        """(1, 1, S, S) in [0, 1]."""
        import torch

        from gen.types import ModelCall

        generator = torch.Generator().manual_seed(item["seed"])
        noise = torch.randn(1, 1, spec.side, spec.side, generator=generator)

        def settle() -> "Process[tuple[Tensor]]":
            if spec.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            sample = noise.to(pipeline.device)
            for _ in range(spec.num_inference_steps):
                # finite, however many steps
                sample = (sample + (yield ModelCall("unet", (sample,)))).clamp(-8, 8)
            return (sample.sigmoid(),)

        return settle()

    def picture(self, result: "tuple[Tensor]") -> "Tensor":
        """It is one."""
        return result[0].float()

    def preview(self, pipeline: NullPipeline, latents: "Tensor") -> "Process[Tensor]":
        """As it is."""
        yield from ()
        return latents

    def encode(
        self,
        pipeline: NullPipeline,
        spec: NullSpec,
        item: ItemSpec,
        result: "tuple[Tensor]",
        settings: dict[str, Any],
    ) -> Made:
        """A grey PNG."""
        from gen.data.images import encode_png
        from gen.data.provenance import Record

        record = Record(
            task="null",
            model="null",
            weight_sha256="0" * 64,
            prompt=spec.prompt,
            seed=item["seed"],
            scheduler="none",
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=1.0,
            height=spec.side,
            width=spec.side,
            settings=settings,
        )
        stream = io.BytesIO()
        encode_png(stream, result[0][0, 0].float().cpu().numpy(), record)
        return Made(stream.getvalue(), "image/png", record.model_dump(mode="json"))
