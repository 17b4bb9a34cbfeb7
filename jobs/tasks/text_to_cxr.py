"""Chest X-rays from sentences."""

import io
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, StringConstraints, model_validator

from gen.guidance.minority import MinorityMethod, check_level
from jobs.tasks.task import ItemSpec, Made, OnStep, Spec, Task, seed_of

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.types import Component, Process
    from pipelines.text_to_cxr import TextToCXRPipeline

MAX_IMAGES = 1000
Sentence = Annotated[
    # a null byte is no text, and PostgreSQL cannot store it
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Side = Annotated[int, Field(ge=32, le=1024)]


class SchedulerName(StrEnum):
    """Samplers, by their usual short names."""

    DPM = "dpm++"
    DDIM = "ddim"
    DDPM = "ddpm"
    EULER = "euler"
    EULER_A = "euler-a"
    HEUN = "heun"
    PNDM = "pndm"
    UNIPC = "unipc"


class FileFormat(StrEnum):
    """What an image is delivered as."""

    PNG = "png"
    DICOM = "dicom"


MEDIA_TYPES = {FileFormat.PNG: "image/png", FileFormat.DICOM: "application/dicom"}


# of plain sampling's work, with what it takes to tell how rare an image became
MINORITY_WORK: dict[MinorityMethod, float] = {
    "boost_and_skip": 1.0,
    "classifier": 1.25,
    "self_guided": 1.6,
    "prompt": 3.0,
}


class TextToCXRSpec(Spec):
    """Chest X-rays asked for in words."""

    prompt: Sentence | Annotated[list[Sentence], Field(min_length=1, max_length=MAX_IMAGES)] = (
        Field(
            description="A sentence, or several, each of at most 1000 characters",
            examples=["frontal chest x-ray of a child with pneumonia"],
        )
    )
    negative_prompt: str = Field(
        "", max_length=1000, pattern=r"^[^\x00]*$", description="What guidance moves away from"
    )
    n: int = Field(1, ge=1, le=MAX_IMAGES, description="Images of each prompt")
    height: Side | None = Field(None, description="Pixels; null is the model's own size")
    width: Side | None = Field(None, description="Pixels; null is the model's own size")
    num_inference_steps: int = Field(25, ge=1, le=200, description="Solver steps; 20-25 is plenty")
    guidance_scale: float = Field(
        1.5, ge=1, le=20, description="How strictly to follow the text; 1 is off"
    )
    scheduler: SchedulerName = Field(SchedulerName.DPM, description="Sampler")
    seed: Seed | Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES)] | None = Field(
        None,
        description="Of the first image, counting up; or one for each image; null draws them",
    )
    minority: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How rare the images shall be: a quantile of how rare the model finds its "
        "training images of the kind, 0.9 as the rarest tenth; null leaves it to chance",
    )
    minority_method: MinorityMethod | None = Field(
        None, description="How the rare are sought; null is the cheapest that reaches the level"
    )
    allow_common: bool = Field(
        False, description="Say that a minority below 0.5, which pushes the rare away, is meant"
    )
    format: FileFormat = Field(FileFormat.PNG, description="File format of each image")

    @property
    def prompts(self) -> list[str]:
        """One for each image."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [prompt for prompt in prompts for _ in range(self.n)]

    @model_validator(mode="after")
    def _counts_fit(self) -> "TextToCXRSpec":
        num_images = self.n * (1 if isinstance(self.prompt, str) else len(self.prompt))
        if num_images > MAX_IMAGES:
            raise ValueError(f"{num_images} images are asked for, but at most {MAX_IMAGES} may be")
        if isinstance(self.seed, list) and len(self.seed) != num_images:
            raise ValueError(
                f"seed has {len(self.seed)} numbers for {num_images} images; give one for each"
            )
        return self

    @model_validator(mode="after")
    def _means_it(self) -> "TextToCXRSpec":
        if self.minority is not None:
            check_level(self.minority, self.allow_common)
        return self


class TextToCXR(Task):
    """Latent diffusion from text, `pipelines.TextToCXRPipeline`."""

    name: ClassVar[str] = "text-to-cxr"
    title: ClassVar[str] = "Chest X-rays from a sentence"
    spec_type: ClassVar[type[Spec]] = TextToCXRSpec
    pipeline_name: ClassVar[str] = "TextToCXRPipeline"
    model_task: ClassVar[str] = "text-to-image"

    def items(self, spec: TextToCXRSpec, request_id: str) -> list[ItemSpec]:
        """Prompt and seed of each image."""
        prompts = spec.prompts
        if spec.seed is None:
            seeds = [seed_of(request_id, index) for index in range(len(prompts))]
        elif isinstance(spec.seed, list):
            seeds = spec.seed
        else:
            seeds = [(spec.seed + index) % 2**63 for index in range(len(prompts))]
        return [{"prompt": p, "seed": s} for p, s in zip(prompts, seeds, strict=True)]

    def work(self, spec: TextToCXRSpec) -> float:
        """Guidance doubles the rows."""
        rows = len(spec.prompts) * (1 if spec.guidance_scale == 1 else 2)
        pixels = (spec.height or 256) * (spec.width or 256)
        method = spec.minority_method or "classifier"
        extra = 1.0 if spec.minority is None else MINORITY_WORK[method]
        return rows * spec.num_inference_steps * pixels / 1e6 * extra

    def warm_up(self) -> dict[str, Any]:
        """An image of two steps."""
        return {"prompt": "normal chest x-ray", "num_inference_steps": 2}

    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> "TextToCXRPipeline":
        """The pipeline on its device; its weights are hashed now, not at the first request."""
        from pipelines.text_to_cxr import TextToCXRPipeline

        pipeline = TextToCXRPipeline.from_pretrained(model, torch_dtype=dtype).to(device)
        _ = pipeline.weight_sha256
        return pipeline

    def networks(self, pipeline: "TextToCXRPipeline") -> dict[str, "Component"]:
        """Text encoder, U-Net and decoder."""
        return pipeline.networks

    def process(
        self, pipeline: "TextToCXRPipeline", spec: TextToCXRSpec, item: ItemSpec, on_step: OnStep
    ) -> "Process[tuple[Tensor, list[float] | None]]":
        """Sampling of one image, with a scheduler of its own, and how rare it became if asked."""
        from gen.denoising import fresh_scheduler, make_generators, scheduler_named

        scheduler = scheduler_named(spec.scheduler, pipeline.scheduler.config)
        # Heun's and PNDM's take more steps than were asked for
        num_steps = len(fresh_scheduler(scheduler, spec.num_inference_steps).timesteps)

        def step(index: int, timestep: "Tensor", latents: "Tensor", denoised: "Tensor") -> None:
            on_step(index + 1, num_steps, denoised)

        minority = None
        if spec.minority is not None:
            minority = pipeline.minority_sampling(
                spec.minority, spec.minority_method, spec.allow_common
            )
        return pipeline.process_scored(
            item["prompt"],
            negative_prompt=spec.negative_prompt or None,
            height=spec.height,
            width=spec.width,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            generator=make_generators([item["seed"]]),
            scheduler=scheduler,
            minority=minority,
            on_step=step,
        )

    def preview(self, pipeline: "TextToCXRPipeline", latents: "Tensor") -> "Process[Tensor]":
        """What the image will roughly be, decoded."""
        return pipeline.decode(latents)

    def picture(self, result: "tuple[Tensor, list[float] | None]") -> "Tensor":
        """The image, grey."""
        return result[0].float().mean(1, keepdim=True)

    def encode(
        self,
        pipeline: "TextToCXRPipeline",
        spec: TextToCXRSpec,
        item: ItemSpec,
        result: "tuple[Tensor, list[float] | None]",
        settings: dict[str, Any],
    ) -> Made:
        """A grey PNG or DICOM object that carries its record."""
        from gen.data.dicom import encode_dicom
        from gen.data.images import encode_png
        from gen.data.provenance import Record
        from jobs.minority_record import minority_settings

        images, reached = result
        pixels = images[0].float().mean(0).cpu().numpy()
        rare: dict[str, Any] = {}
        if spec.minority is not None and reached is not None:
            minority = pipeline.minority_sampling(
                spec.minority, spec.minority_method, spec.allow_common
            )
            rare = minority_settings(minority, reached[0])
        record = Record(
            model=spec.model or "",
            weight_sha256=pipeline.weight_sha256,
            prompt=item["prompt"],
            negative_prompt=spec.negative_prompt,
            seed=item["seed"],
            scheduler=spec.scheduler.value,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            height=pixels.shape[0],
            width=pixels.shape[1],
            settings={"device": pipeline.device.type, **rare, **settings},
        )
        stream = io.BytesIO()
        if spec.format is FileFormat.DICOM:
            encode_dicom(stream, pixels, record)
        else:
            encode_png(stream, pixels, record)
        return Made(stream.getvalue(), MEDIA_TYPES[spec.format], record.model_dump(mode="json"))
