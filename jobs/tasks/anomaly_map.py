"""Where pictures depart from healthy anatomy: a map, a healthy picture and boxes for each."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from gen.anomaly.calibration import (
    CALIBRATE,
    HEALTHY_PROMPT,
    AnomalyCalibration,
    MethodName,
    calibration_in,
)
from gen.data.limits import Limits
from gen.errors import InvalidInput
from gen.store.catalogue import resolve
from jobs.sink import BUNDLE
from jobs.tasks.study import Study
from jobs.tasks.task import ItemSpec, Made, OnStep, Spec, Task, seed_of
from jobs.tasks.text_to_cxr import Seed, Sentence
from jobs.tasks.uploads import Radiograph, upload_schema

if TYPE_CHECKING:  # torch is imported where images are made
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.data.medical_image import MedicalImage
    from gen.data.model_square import ModelSquare
    from gen.data.provenance import Record
    from gen.types import Component, Process
    from jobs.pacs.search import Instance
    from pipelines.anomaly import AnomalyPipeline, SquareDeparture
    from pipelines.outputs import AnomalyMap
    from pipelines.text_to_cxr import TextToCXRPipeline

MAX_PICTURES = 16
DERIVED = ("mask.dcm", "overlay.dcm")  # of a DICOM picture: what joins its study
FALSE_POSITIVE_RATE = 0.05  # of healthy pictures, in which something is marked
# a radiograph of any detector; the map and the healthy picture have as many pixels
PICTURE = Limits(max_side=8192, max_pixels=2**24, max_bytes=16 * 2**20)

# Calls of the U-Net, at most, and rows of them where latents have 16 x 16 cells, as cxr-mini's.
CALLS: dict[MethodName, int] = {
    "autopaint": 20,
    "patchwise": 9,
    "autoddpm": 450,
    "thor": 354,
    "single_step": 2,
}
ROWS: dict[MethodName, int] = {**CALLS, "autopaint": 80, "patchwise": 441, "single_step": 16}
MEGAPIXELS = 256 * 256 / 1e6  # of the square that most models see

Picture = Annotated[Radiograph, *upload_schema(PICTURE, Radiograph)]


class AnomalyMapSpec(Spec):
    """Pictures, and what is to be called unusual in them."""

    images: Annotated[list[Picture], Field(min_length=1, max_length=MAX_PICTURES)] | None = Field(
        None,
        description="1 to 16 frontal chest X-rays: PNG, JPEG or DICOM of 8 or 16 bits in base64, "
        "each at most 16 MiB and 2^24 pixels",
    )
    study: Study | None = Field(
        None, description="Or the study of a PACS that the service knows, mapped as a job"
    )
    method: MethodName = Field(
        "autopaint",
        description="How healthy anatomy is painted; patchwise, thor and autoddpm cost 5 or 6 "
        "times as much as autopaint, single_step a quarter",
    )
    prompt: Sentence | None = Field(
        None, description="What healthy looks like, in words; null is what the model knows it by"
    )
    threshold: float | None = Field(
        None, ge=0, le=1e6, description="What the map must exceed to be marked"
    )
    threshold_fpr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Or the share of healthy pictures in which anything would be marked, of a "
        "calibrated model; where both are null it is 0.05",
    )
    seed: Seed | None = Field(
        None,
        description="Of the first picture, counting up; null draws it. Of a study it is that of "
        "each picture, so that results are the same whenever they are made; null is 0",
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> "AnomalyMapSpec":
        if (self.images is None) == (self.study is None):
            raise ValueError("images or study must be given, and not both")
        return self

    @model_validator(mode="after")
    def _has_one_threshold(self) -> "AnomalyMapSpec":
        if self.threshold is not None and self.threshold_fpr is not None:
            raise ValueError(
                "threshold and threshold_fpr are given, but each says what is marked; give one"
            )
        return self

    @property
    def pictures(self) -> list[Radiograph]:
        """Those that were sent."""
        return self.images or []

    @property
    def false_positive_rate(self) -> float:
        """The rate that decides, unless a threshold does."""
        return FALSE_POSITIVE_RATE if self.threshold_fpr is None else self.threshold_fpr


@dataclass(frozen=True, eq=False)
class Compared:
    """A picture, where it lies in the model's square, and what was found there."""

    source: "MedicalImage"
    square: "ModelSquare"
    found: "SquareDeparture"


class AnomalyMaps(Task):
    """Pictures painted healthy and compared: `pipelines.AnomalyPipeline`."""

    name: ClassVar[str] = "anomaly-maps"
    title: ClassVar[str] = "Anomaly maps of chest X-rays"
    spec_type: ClassVar[type[Spec]] = AnomalyMapSpec
    pipeline_name: ClassVar[str] = "TextToCXRPipeline"  # with whose requests forwards are shared
    model_task: ClassVar[str] = "text-to-image"
    has_uploads: ClassVar[bool] = True

    def items(self, spec: AnomalyMapSpec, request_id: str) -> list[ItemSpec]:
        """One for each picture that was sent, with its seed."""
        return [
            {
                "image": index,
                "seed": seed_of(request_id, index)
                if spec.seed is None
                else (spec.seed + index) % 2**63,
            }
            for index in range(len(spec.pictures))
        ]

    def work(self, spec: AnomalyMapSpec) -> float:
        """Of the U-Net, as for images that are made; of a study for each of its pictures."""
        return max(1, len(spec.pictures)) * ROWS[spec.method] * MEGAPIXELS

    def warm_up(self) -> dict[str, Any]:
        """A grey ramp, with the method of the least work."""
        return {"images": [grey_ramp()], "method": "single_step", "threshold": 1}

    def check_model(self, spec: AnomalyMapSpec) -> None:
        """The rate that is asked for must be known, unless a threshold is given."""
        if spec.threshold is not None:
            return
        calibration = anomaly_calibration(spec.model or "")
        if calibration is None:
            raise InvalidInput(
                f"threshold_fpr: model {spec.model!r} is not calibrated on healthy pictures; give"
                f" a threshold, or run {CALIBRATE} on the model"
            )
        calibration.threshold(spec.method, spec.false_positive_rate)

    def study(self, spec: AnomalyMapSpec) -> Study | None:
        """As it is named."""
        return spec.study

    def study_items(self, spec: AnomalyMapSpec, found: "Sequence[Instance]") -> list[ItemSpec]:
        """One for each picture; each will be the only one of its spec."""
        return [{"image": 0, "seed": spec.seed or 0, "instance": asdict(each)} for each in found]

    def detach(self, spec: AnomalyMapSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Digests instead of pictures, and the pictures by their digests."""
        if spec.study is not None:
            return spec.model_dump(mode="json", exclude={"images"}), {}
        light = spec.model_dump(mode="json", exclude={"images", "study"})
        light["images"] = [each.to_digest() for each in spec.pictures]
        return light, {each.digest: each.data for each in spec.pictures}

    def attach(self, spec: dict[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
        """Pictures instead of digests; those of a study lie in its PACS."""
        if spec.get("study") is not None:
            return spec
        pictures = [Radiograph(read(each["sha256"]), PICTURE) for each in spec["images"]]
        return {**spec, "images": [each.to_base64() for each in pictures]}

    def load(self, model: str, device: "torch.device", dtype: "torch.dtype") -> "TextToCXRPipeline":
        """The pipeline that draws such pictures; its weights are hashed now."""
        from jobs.tasks.text_to_cxr import TextToCXR

        return TextToCXR().load(model, device, dtype)

    def networks(self, pipeline: "TextToCXRPipeline") -> dict[str, "Component"]:
        """Those that draw, and what pictures are encoded and compared by."""
        from pipelines.anomaly import AnomalyPipeline

        maps = AnomalyPipeline.over(pipeline)
        _ = maps.encoder  # loaded now, not while others wait for the engine
        return maps.networks

    def process(
        self,
        pipeline: "TextToCXRPipeline",
        spec: AnomalyMapSpec,
        item: ItemSpec,
        on_step: OnStep,
    ) -> "Process[Compared]":
        """One picture, decoded now. Steps are calls of the U-Net, of which there may be fewer."""
        from gen.data.model_square import ModelSquare
        from pipelines.anomaly import AnomalyPipeline

        maps = AnomalyPipeline.over(pipeline)
        maps.threshold(spec.method, spec.threshold, spec.false_positive_rate)
        source = spec.pictures[item["image"]].grey()
        height, width = source.pixels.shape
        square = ModelSquare(height, width, maps.size)
        num_calls = CALLS[spec.method]
        calls = iter(range(1, 2**31))

        def on_estimate(estimate: "Tensor") -> None:
            on_step(min(next(calls), num_calls), num_calls, estimate)

        def compare() -> "Process[Compared]":
            found = yield from maps.process(
                square.to_model(source.pixels),
                spec.method,
                healthy_prompt(maps, spec),
                item["seed"],
                square,
                on_estimate=on_estimate,
            )
            return Compared(source, square, found)

        return compare()

    def preview(self, pipeline: "TextToCXRPipeline", latents: "Tensor") -> "Process[Tensor]":
        """What the picture is being painted as."""
        return pipeline.decode(latents)

    def encode(
        self,
        pipeline: "TextToCXRPipeline",
        spec: AnomalyMapSpec,
        item: ItemSpec,
        result: Compared,
        settings: dict[str, Any],
    ) -> Made:
        """An archive of the map as numbers and in colour, the healthy picture and the record."""
        from gen.data.bundle import pack
        from gen.data.provenance import Record
        from pipelines.anomaly import AnomalyPipeline, on_source

        maps = AnomalyPipeline.over(pipeline)
        limit = maps.threshold(spec.method, spec.threshold, spec.false_positive_rate)
        found = on_source(result.source.pixels, result.square, result.found, limit)
        rate = spec.false_positive_rate if spec.threshold is None else None
        upload = spec.pictures[item["image"]]
        record = Record(
            task="anomaly_map",
            model=spec.model or "",
            weight_sha256=pipeline.weight_sha256,
            prompt=healthy_prompt(maps, spec),
            seed=item["seed"],
            scheduler=type(pipeline.scheduler).__name__,
            num_inference_steps=maps.num_inference_steps[spec.method],
            guidance_scale=1.0,
            height=result.square.height,
            width=result.square.width,
            settings={
                "method": spec.method,
                "threshold": found.threshold,
                "threshold_fpr": rate,
                "device": pipeline.device.type,
                **settings,
            },
            source_sha256=upload.digest,
        )
        files = {**pictures(result.source, found, record), **dicom_files(upload, found, record)}
        said = {
            **record.model_dump(mode="json"),
            "method": spec.method,
            "score": found.score,
            "threshold": found.threshold,
            "boxes": [region.as_json() for region in found.regions],
            "files": [*files, "record.json"],
        }
        text = json.dumps(said, indent=1, allow_nan=False)
        return Made(pack({**files, "record.json": text.encode()}), BUNDLE, said)


@lru_cache(maxsize=64)
def anomaly_calibration(model: str) -> AnomalyCalibration | None:
    """Of a model's card; None if it says nothing of anomalies."""
    card = resolve(model).card
    return None if card is None else calibration_in(card.calibration)


def healthy_prompt(maps: "AnomalyPipeline", spec: AnomalyMapSpec) -> str:
    """What was asked for, or what the thresholds were found with."""
    return spec.prompt or (maps.calibration.prompt if maps.calibration else HEALTHY_PROMPT)


def pictures(source: "MedicalImage", found: "AnomalyMap", record: "Record") -> dict[str, bytes]:
    """What is looked at, and the map's numbers.

    `picture.png` and `heat.png` lie below and above each other where the one fades.
    """
    import numpy as np

    from gen.data.heat_overlay import heat_colours, heat_overlay
    from gen.data.images import encode_png, to_integers

    heat = heat_of(found)
    alone = np.concatenate([heat_colours(heat), 255 * heat[..., None]], axis=-1)
    healthy, numbers = io.BytesIO(), io.BytesIO()
    encode_png(healthy, found.healthy, record, bits=16 if source.bits > 8 else 8)
    np.save(numbers, found.map, allow_pickle=False)
    return {
        "overlay.png": _png(heat_overlay(source.pixels, heat, found.mask), record),
        "healthy.png": healthy.getvalue(),
        "picture.png": _png(to_integers(source.pixels, 8).astype(np.uint8)),
        "heat.png": _png(np.rint(alone).astype(np.uint8), record),
        "map.npy": numbers.getvalue(),
    }


def heat_of(found: "AnomalyMap") -> "NDArray[np.float32]":
    """The map in [0, 1]: a half is the threshold, and the whole is twice that."""
    import numpy as np

    most = 2 * found.threshold or float(found.map.max()) or 1.0
    return np.clip(found.map / np.float32(most), 0, 1).astype(np.float32)


def dicom_files(upload: Radiograph, found: "AnomalyMap", record: "Record") -> dict[str, bytes]:
    """The mask as a segmentation and the overlay as a capture, in the study of a DICOM source.

    A source without identity, such as a file that was stripped of it, has no study to join.
    """
    from gen.data.dicom_derived import encode
    from gen.data.dicom_overlay import build_overlay
    from gen.data.dicom_segmentation import build_segmentation
    from gen.data.dicom_source import read_source
    from gen.data.heat_overlay import heat_overlay

    if not upload.is_dicom:
        return {}
    try:
        source = read_source(upload.data, upload.limits)
    except InvalidInput:
        return {}
    colours = heat_overlay(upload.grey().pixels, heat_of(found), found.mask)
    mask = build_segmentation(found.mask, [source], record)
    files = {}
    for name, dataset in zip(DERIVED, (mask, build_overlay(colours, source, record)), strict=True):
        stream = io.BytesIO()
        encode(stream, dataset)
        files[name] = stream.getvalue()
    return files


def _png(pixels: "NDArray[np.uint8]", record: "Record | None" = None) -> bytes:
    """A real picture, which is not said to be synthetic; with a record, it lies under a map."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if record is not None:
        info.add_text("Description", "Anomaly map, made by a program; no diagnosis.")
        info.add_text("Software", record.software)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def grey_ramp() -> str:
    """A picture of nothing, in base64."""
    import numpy as np

    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    return Radiograph(_png(ramp), PICTURE).to_base64()
