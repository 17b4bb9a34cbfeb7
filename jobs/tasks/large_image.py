"""Large images of tissue: like a picture, varied from a few, or from words."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from gen.data.limits import Limits
from jobs.large_record import large_record
from jobs.tasks.raster import Raster
from jobs.tasks.task import ItemSpec, Made, OnStep, Spec, Task, seed_of
from jobs.tasks.text_to_cxr import Seed, Sentence
from jobs.tasks.uploads import Upload, upload_schema

if TYPE_CHECKING:  # torch is imported where images are made
    import torch
    from torch import Tensor

    from gen.embedding_field import EmbeddingField
    from gen.types import Component, Process
    from pipelines.large_image import LargeImagePipeline

MAX_PIXELS = 2**27
MAX_VARIATIONS = 4
# decoded, 100 MB of a reference and 50 MB of all tiles: a few jobs may hold theirs at once
REFERENCE = Limits(max_side=8192, max_pixels=2**25, max_bytes=16 * 2**20)
TILE = Limits(max_side=2048, max_pixels=2**22, max_bytes=4 * 2**20)
# windows that lie over a pixel: neighbours share a quarter of a side, or lie a quarter apart
WINDOWS_OVER_A_PIXEL = {"shift": (4 / 3) ** 2, "overlap": 4.0**2}
ROWS_AT_A_TIME = 256  # one row of tiles

Side = Annotated[int, Field(ge=256, le=16384)]
Reference = Annotated[Upload, *upload_schema(REFERENCE)]
Tile = Annotated[Upload, *upload_schema(TILE)]


class Method(StrEnum):
    """How windows are laid."""

    SHIFT = "shift"
    OVERLAP = "overlap"


class LargeImageSpec(Spec):
    """One large image; exactly one of `like`, `variation` and `text` says what it shows."""

    like: Reference | None = Field(
        None,
        description="Lay out tissue as this picture: PNG, JPEG or TIFF in base64, at most 16 MiB "
        "and 2^25 pixels; it is stretched to the image's size",
    )
    variation: Annotated[list[Tile], Field(min_length=1, max_length=MAX_VARIATIONS)] | None = Field(
        None,
        description="Show such tissue anywhere: 1 to 4 pictures of at most 4 MiB and 2^22 pixels",
    )
    text: Sentence | None = Field(
        None, description="Words", examples=["colorectal tumour epithelium, crowded nuclei"]
    )
    width: Side = Field(2048, description="Pixels")
    height: Side = Field(2048, description="Pixels; width x height is at most 2^27")
    method: Method = Field(
        Method.SHIFT, description="shift: moving windows; overlap: the paper's, nine times the work"
    )
    num_inference_steps: int = Field(25, ge=1, le=200, description="Solver steps")
    guidance_scale: float = Field(1.0, ge=1, le=20, description="How strictly to follow; 1 is off")
    microns_per_pixel: float = Field(
        0.5, ge=0.05, le=20, description="Magnification: 0.5 is that of a 20x scan"
    )
    seed: Seed | None = Field(None, description="Null draws it")

    @property
    def source(self) -> str:
        """Which of the three was given."""
        return next(name for name in SOURCES if getattr(self, name) is not None)

    @property
    def uploads(self) -> list[Upload]:
        """The pictures, if any."""
        return [self.like] if self.like else list(self.variation or ())

    @model_validator(mode="after")
    def _has_one_source(self) -> "LargeImageSpec":
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'none'} of like, variation and text is given, but exactly"
                " one says what the image shows; give one"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "LargeImageSpec":
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(
                f"width x height is {self.width * self.height} pixels, but at most {MAX_PIXELS} are"
                f" drawn; with this width, height may be {MAX_PIXELS // self.width}"
            )
        return self


SOURCES = ("like", "variation", "text")


class LargeImages(Task):
    """Windows of a patch model, drawn jointly: `pipelines.LargeImagePipeline`."""

    name: ClassVar[str] = "large-images"
    title: ClassVar[str] = "Large images of tissue"
    spec_type: ClassVar[type[Spec]] = LargeImageSpec
    pipeline_name: ClassVar[str] = "LargeImagePipeline"
    model_task: ClassVar[str] = "embedding-to-image"
    has_uploads: ClassVar[bool] = True

    def items(self, spec: LargeImageSpec, request_id: str) -> list[ItemSpec]:
        """One, with its seed."""
        return [{"seed": seed_of(request_id, 0) if spec.seed is None else spec.seed}]

    def work(self, spec: LargeImageSpec) -> float:
        """Guidance doubles the rows, and so does the overlap of windows many times."""
        rows = WINDOWS_OVER_A_PIXEL[spec.method] * (1 if spec.guidance_scale == 1 else 2)
        return rows * spec.num_inference_steps * spec.width * spec.height / 1e6

    def warm_up(self) -> dict[str, Any]:
        """The smallest image, varied from a grey tile: of sources, all models have this."""
        return {"variation": [grey_tile()], "width": 256, "height": 256, "num_inference_steps": 1}

    def detach(self, spec: LargeImageSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Digests instead of pictures, and the pictures by their digests."""
        light = spec.model_dump(mode="json", exclude={"like", "variation"})
        light["like"] = spec.like and spec.like.to_digest()
        light["variation"] = spec.variation and [each.to_digest() for each in spec.variation]
        return light, {each.digest: each.data for each in spec.uploads}

    def attach(self, spec: dict[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
        """Pictures instead of digests."""

        def picture(shown: dict[str, Any], limits: Limits) -> str:
            return Upload(read(shown["sha256"]), limits).to_base64()

        like, variation = spec["like"], spec["variation"]
        return {
            **spec,
            "like": like and picture(like, REFERENCE),
            "variation": variation and [picture(each, TILE) for each in variation],
        }

    def load(
        self, model: str, device: "torch.device", dtype: "torch.dtype"
    ) -> "LargeImagePipeline":
        """The pipeline on its device, with its encoder; its weights are hashed now."""
        from pipelines.large_image import LargeImagePipeline

        pipeline = LargeImagePipeline.from_pretrained(model, torch_dtype=dtype).to(device)
        _ = pipeline.weight_sha256, pipeline.embedder
        return pipeline

    def networks(self, pipeline: "LargeImagePipeline") -> dict[str, "Component"]:
        """U-Net, decoder, encoder of patches, and those of words."""
        return pipeline.networks

    def process(
        self, pipeline: "LargeImagePipeline", spec: LargeImageSpec, item: ItemSpec, on_step: OnStep
    ) -> "Process[Raster]":
        """The image, row by row.

        Pictures are decoded now, not while others wait for the engine. Steps are windows.
        """
        from gen.denoising import make_generators
        from pipelines.large_previews import Overview

        generator = make_generators([item["seed"]])[0]
        field = _field(pipeline, spec, generator)
        overview = Overview(
            pipeline.canvas_size(spec.height, spec.width), pipeline.unet.config.in_channels
        )

        def draw() -> "Process[Raster]":
            raster = Raster(spec.width)
            yield from pipeline.process(
                (yield from field),
                raster.write,
                height=spec.height,
                width=spec.width,
                method=spec.method.value,
                num_inference_steps=spec.num_inference_steps,
                guidance_scale=spec.guidance_scale,
                microns_per_pixel=spec.microns_per_pixel,
                generator=generator,
                on_windows=lambda done, total: on_step(done, total, overview.latents),
                on_denoised=overview.add if spec.previews else None,
            )
            return raster

        return draw()

    def preview(self, pipeline: "LargeImagePipeline", latents: "Tensor") -> "Process[Tensor]":
        """The whole image in small, in colour: layout and stain, without its fine detail.

        What is decoded are the latents that each window was last estimated to end with, averaged
        over cells, so that it costs about as much as decoding four windows.
        """
        from pipelines.large_previews import decode_overview

        return decode_overview(latents, pipeline.vae)

    def preview_png(self, pixels: "Tensor") -> bytes:
        """In colour."""
        from gen.data.convert import colour_preview

        return colour_preview(pixels[0].movedim(0, -1).float().cpu().numpy())

    def encode(
        self,
        pipeline: "LargeImagePipeline",
        spec: LargeImageSpec,
        item: ItemSpec,
        result: Raster,
        settings: dict[str, Any],
    ) -> Made:
        """A pyramidal OME-TIFF of JPEG tiles that carries its record."""
        from gen.data.slide_writer import SlideWriter

        record = large_record(
            pipeline,
            model=spec.model or "",
            source=spec.source,
            text=spec.text or "",
            source_digests=[bytes.fromhex(each.digest) for each in spec.uploads],
            seed=item["seed"],
            method=spec.method.value,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            microns_per_pixel=spec.microns_per_pixel,
            height=spec.height,
            width=spec.width,
        )
        more = {"device": pipeline.unet.device.type, **settings}
        record = record.model_copy(update={"settings": {**record.settings, **more}})
        with TemporaryDirectory() as folder:
            path = Path(folder, "image.ome.tif")
            scale = spec.microns_per_pixel
            with SlideWriter(
                path, spec.height, spec.width, microns_per_pixel=scale, record=record
            ) as writer:
                for band in result.bands(ROWS_AT_A_TIME):
                    writer.write(band)
            result.close()
            return Made(path.read_bytes(), "image/tiff", record.model_dump(mode="json"))


def grey_tile() -> str:
    """A picture of nothing, in base64."""
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (64, 64), (200, 160, 190)).save(stream, "PNG")
    return Upload(stream.getvalue(), TILE).to_base64()


def _field(
    pipeline: "LargeImagePipeline", spec: LargeImageSpec, generator: "torch.Generator"
) -> "Process[EmbeddingField]":
    from gen.reference_field import reader

    if spec.text is not None:
        return pipeline.field_from_text(spec.text, spec.height, spec.width, generator=generator)
    pictures = [each.decode() for each in spec.uploads]
    if spec.like is not None:
        return pipeline.field_like(reader(pictures[0]), *pictures[0].shape[:2])
    return pipeline.field_varied(pictures, spec.height, spec.width, generator)
