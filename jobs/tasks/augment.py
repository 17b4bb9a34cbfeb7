"""Training pictures from training pictures: varied, lesions in or out, from words, or classical."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from gen.augmentation.classical import Step, describe_steps
from gen.augmentation.operations import NUM_INFERENCE_STEPS, RULES, Operation, check_needs
from gen.data.captions import canonical, caption
from jobs.sink import BUNDLE
from jobs.tasks.anomaly_map import MEGAPIXELS, PICTURE, Picture, grey_ramp
from jobs.tasks.said_labels import SaidLabels
from jobs.tasks.task import ItemSpec, Made, OnStep, Spec, Task, seed_of
from jobs.tasks.text_to_cxr import Seed, Sentence
from jobs.tasks.uploads import PNG_START, Radiograph

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.data.medical_image import MedicalImage
    from gen.data.provenance import Record
    from gen.types import Component, Process
    from pipelines.outputs import Augmented
    from pipelines.redrawing import Area
    from pipelines.text_to_cxr import TextToCXRPipeline

MAX_PICTURES = 16
MAX_ITEMS = 1000
MAX_STEPS = 8
CLASSICAL_WORK = 0.1  # megapixel steps of a picture that no network sees

Box = tuple[float, float, float, float]
Mask = Annotated[Picture, Field(description="PNG as large as its picture; 0 is background")]
Many = Field(min_length=1, max_length=MAX_ITEMS)


class AugmentSpec(Spec):
    """Pictures or words, and what is to be made of them."""

    operation: Operation = Field(
        description="vary: noised in part and drawn anew; insert, remove: a lesion painted in or "
        "out; synthesise: from words alone; classical: by the classical steps alone"
    )
    images: Annotated[list[Picture], Field(max_length=MAX_PICTURES)] = Field(
        default=[],
        description="Up to 16 frontal chest X-rays: PNG, JPEG or DICOM in base64; none to "
        "synthesise",
    )
    masks: list[Mask | None] | None = Field(
        None, description="One a picture: where to insert or remove, or a label that moves along"
    )
    boxes: list[Box | None] | None = Field(
        None,
        description="Or boxes (x, y, width, height) in pixels, of which the ellipse is painted; "
        "where neither is given, insert draws a place in the lungs",
    )
    prompt: Sentence | Annotated[list[Sentence], Many] | None = Field(
        None, description="What is to be seen: one sentence for all, or one for each picture"
    )
    labels: SaidLabels | Annotated[list[SaidLabels], Many] | None = Field(
        None, description="Or labels, which become sentences"
    )
    negative_prompt: str | None = Field(
        None,
        max_length=1000,
        pattern=r"^[^\x00]*$",
        description="What guidance moves away from; null is nothing, of insert the same person "
        "in health",
    )
    n: int = Field(1, ge=1, le=MAX_ITEMS, description="Results of each picture or prompt")
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the noise schedule that is gone through; null is the operation's own",
    )
    guidance_scale: float | None = Field(
        None,
        ge=1,
        le=20,
        description="How strictly to follow the words; 1 is off, null is the operation's own",
    )
    num_inference_steps: int = Field(
        NUM_INFERENCE_STEPS, ge=1, le=200, description="Solver steps of the whole schedule"
    )
    classical: Annotated[list[Step], Field(max_length=MAX_STEPS)] = Field(
        default=[], description="Classical steps that follow, or all that is done"
    )
    seed: Seed | None = Field(None, description="Of the first result, counting up; null draws it")

    @property
    def num_rows(self) -> int:
        """Pictures, or prompts where there are none."""
        lists = (self.images, self.prompt, self.labels)
        return next((len(each) for each in lists if isinstance(each, list) and each), 1)

    @property
    def guidance(self) -> float:
        """The scale that acts."""
        own = RULES[self.operation].guidance_scale or 1.0
        return own if self.guidance_scale is None else self.guidance_scale

    @property
    def share(self) -> float:
        """Of the noise schedule that is gone through."""
        own = RULES[self.operation].strength or 1.0
        return own if self.strength is None else self.strength

    def sentence(self, row: int, seed: int) -> str | None:
        """What is to be seen in a picture; drawn from phrasings where nothing else differs."""
        if self.prompt is not None:
            return self.prompt if isinstance(self.prompt, str) else self.prompt[row]
        if self.labels is None:
            return None
        said = self.labels[row] if isinstance(self.labels, list) else self.labels
        if self.operation != "synthesise":
            return canonical(said.known)
        return caption(said.known, random.Random(seed))

    def has_area(self, row: int) -> bool:
        """Whether it is said where."""
        return any(each is not None and each[row] is not None for each in (self.masks, self.boxes))

    @model_validator(mode="after")
    def _is_one_of_each(self) -> "AugmentSpec":
        if self.prompt is not None and self.labels is not None:
            raise ValueError("prompt and labels are given, but each says what is seen; give one")
        for name in ("masks", "boxes", "prompt", "labels"):
            given = getattr(self, name)
            if isinstance(given, list) and len(given) != self.num_rows:
                raise ValueError(
                    f"{name} has {len(given)} entries for {self.num_rows} pictures; give one for"
                    " each"
                )
        if self.num_rows * self.n > MAX_ITEMS:
            raise ValueError(
                f"{self.num_rows * self.n} results are asked for, but at most {MAX_ITEMS} may be"
            )
        return self

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "AugmentSpec":
        for row in range(self.num_rows):
            check_needs(
                self.operation,
                picture=bool(self.images),
                prompt=self.prompt is not None or self.labels is not None,
                mask=self.has_area(row),
                strength=self.strength,
                steps=bool(self.classical),
            )
            self._check_area(row)
        return self

    def _check_area(self, row: int) -> None:
        """A mask or box must fit its picture, by what their headers say."""
        mask = None if self.masks is None else self.masks[row]
        box = None if self.boxes is None else self.boxes[row]
        if mask is None and box is None:
            return
        from gen.augmentation.areas import check_box, check_size
        from gen.data.images import stored_size

        if mask is not None and box is not None:
            raise ValueError(f"masks[{row}] and boxes[{row}] are given; give one")
        shape = stored_size(self.images[row].data, PICTURE)
        if box is not None:
            check_box(box, shape)
        if mask is not None:
            if not mask.data.startswith(PNG_START):
                raise ValueError(f"masks[{row}] is no PNG; other formats blur what is marked")
            check_size(stored_size(mask.data, PICTURE), shape)


@dataclass(frozen=True, eq=False)
class Result:
    """What was made, and how many bits its picture has."""

    made: "Augmented"
    bits: int


class Augment(Task):
    """Pictures made from pictures: `pipelines.AugmentationPipeline`."""

    name: ClassVar[str] = "augment"
    title: ClassVar[str] = "Training pictures from chest X-rays"
    spec_type: ClassVar[type[Spec]] = AugmentSpec
    pipeline_name: ClassVar[str] = "TextToCXRPipeline"  # with whose requests forwards are shared
    model_task: ClassVar[str] = "text-to-image"
    has_uploads: ClassVar[bool] = True

    def items(self, spec: AugmentSpec, request_id: str) -> list[ItemSpec]:
        """Results of each picture side by side, with their seeds and sentences."""
        items = []
        for index in range(spec.num_rows * spec.n):
            row = index // spec.n
            drawn = seed_of(request_id, index)
            seed = drawn if spec.seed is None else (spec.seed + index) % 2**63
            items.append({"row": row, "prompt": spec.sentence(row, seed), "seed": seed})
        return items

    def work(self, spec: AugmentSpec) -> float:
        """Of the U-Net, as for images that are made."""
        count = spec.num_rows * spec.n
        if RULES[spec.operation].guidance_scale is None:
            return count * CLASSICAL_WORK
        rows = count * (1 if spec.guidance == 1 else 2)
        return rows * max(1.0, spec.share * spec.num_inference_steps) * MEGAPIXELS

    def warm_up(self) -> dict[str, Any]:
        """A grey ramp, varied in two steps."""
        return {
            "operation": "vary",
            "images": [grey_ramp()],
            "prompt": "normal chest x-ray",
            "strength": 1,
            "num_inference_steps": 2,
        }

    def detach(self, spec: AugmentSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Digests instead of pictures, and the pictures by their digests."""
        light = spec.model_dump(mode="json", exclude={"images", "masks"})
        light["images"] = [each.to_digest() for each in spec.images]
        light["masks"] = spec.masks and [each and each.to_digest() for each in spec.masks]
        files = [*spec.images, *(each for each in spec.masks or () if each is not None)]
        return light, {each.digest: each.data for each in files}

    def attach(self, spec: dict[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
        """Pictures instead of digests."""

        def picture(shown: dict[str, Any] | None) -> str | None:
            return Radiograph(read(shown["sha256"]), PICTURE).to_base64() if shown else None

        masks = spec["masks"] and [picture(each) for each in spec["masks"]]
        return {**spec, "images": [picture(each) for each in spec["images"]], "masks": masks}

    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> "TextToCXRPipeline":
        """The pipeline that draws such pictures; its weights are hashed now."""
        from jobs.tasks.text_to_cxr import TextToCXR

        return TextToCXR().load(model, device, dtype)

    def networks(self, pipeline: "TextToCXRPipeline") -> dict[str, "Component"]:
        """Those that draw, and what pictures are encoded by."""
        from pipelines.pictures import picture_networks

        return picture_networks(pipeline)

    def process(
        self, pipeline: "TextToCXRPipeline", spec: AugmentSpec, item: ItemSpec, on_step: OnStep
    ) -> "Process[Result]":
        """One result, its picture decoded now. Steps are calls of the U-Net."""
        from pipelines.augmentation import AugmentationPipeline

        row = item["row"]
        source = spec.images[row].grey() if spec.images else None
        making = AugmentationPipeline.over(pipeline).process(
            spec.operation,
            None if source is None else source.pixels,
            item["prompt"],
            area_in(spec, row),
            negative_prompt=spec.negative_prompt,
            strength=spec.strength,
            guidance_scale=spec.guidance_scale,
            num_inference_steps=spec.num_inference_steps,
            classical=spec.classical,
            seed=item["seed"],
            on_step=on_step,
        )
        return _with_bits(making, source)

    def preview(self, pipeline: "TextToCXRPipeline", latents: "Tensor") -> "Process[Tensor]":
        """What the picture is becoming."""
        return pipeline.decode(latents)

    def picture(self, result: Result) -> "Tensor":
        """The picture that was made."""
        import torch

        return torch.from_numpy(result.made.image)[None, None]

    def encode(
        self,
        pipeline: "TextToCXRPipeline",
        spec: AugmentSpec,
        item: ItemSpec,
        result: Result,
        settings: dict[str, Any],
    ) -> Made:
        """A PNG that carries its record; with a mask, an archive of both and the record."""
        from gen.data.bundle import pack
        from gen.data.images import encode_png

        made = result.made
        record = record_of(pipeline, spec, item, made, settings)
        stream = io.BytesIO()
        encode_png(stream, made.image, record, bits=16 if result.bits > 8 else 8)
        said = record.model_dump(mode="json")
        if made.mask is None:
            return Made(stream.getvalue(), "image/png", said)
        files = {"image.png": stream.getvalue(), "mask.png": _mask_png(made)}
        said["files"] = [*files, "record.json"]
        text = json.dumps(said, indent=1, allow_nan=False)
        return Made(pack({**files, "record.json": text.encode()}), BUNDLE, said)


def area_in(spec: AugmentSpec, row: int) -> "Area | None":
    """The mask or box of a picture, the mask decoded."""
    from gen.data.pictures import picture_pixels

    if spec.masks is not None and (mask := spec.masks[row]) is not None:
        return picture_pixels("the mask", mask.data, mask.limits)[0]
    return None if spec.boxes is None else spec.boxes[row]


def record_of(
    pipeline: "TextToCXRPipeline",
    spec: AugmentSpec,
    item: ItemSpec,
    made: "Augmented",
    settings: dict[str, Any],
) -> "Record":
    """Where a result comes from."""
    from gen.data.provenance import AUGMENTED, Record
    from pipelines.augmentation import negative_of

    rules = RULES[spec.operation]
    own: dict[str, Any] = {"operation": spec.operation}
    if rules.strength is not None:
        own["strength"] = spec.share
    if made.change is not None:
        given = "mask" if spec.masks and spec.masks[item["row"]] else "box"
        own |= {
            "area": given if spec.has_area(item["row"]) else "drawn",
            "change": round(made.change, 6),
        }
    if spec.classical:
        own["classical"] = describe_steps(spec.classical)
    asks = rules.guidance_scale is not None
    return Record(
        task=AUGMENTED,
        model=spec.model or "",
        weight_sha256=pipeline.weight_sha256,
        prompt=made.prompt,
        negative_prompt=negative_of(spec.operation, item["prompt"], spec.negative_prompt),
        seed=item["seed"],
        scheduler=type(pipeline.scheduler).__name__ if asks else "none",
        num_inference_steps=spec.num_inference_steps if asks else 1,
        guidance_scale=spec.guidance,
        height=made.image.shape[0],
        width=made.image.shape[1],
        settings={**own, "device": pipeline.device.type, **settings},
        source_sha256=spec.images[item["row"]].digest if spec.images else None,
    )


def _with_bits(making: "Process[Augmented]", source: "MedicalImage | None") -> "Process[Result]":
    made = yield from making
    return Result(made, 8 if source is None else source.bits)


def _mask_png(made: "Augmented") -> bytes:
    """255 where the label is, 0 elsewhere."""
    import numpy as np
    from PIL import Image

    assert made.mask is not None
    stream = io.BytesIO()
    Image.fromarray(made.mask.astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()
