"""Images of any size from embeddings: Graikos et al. 2024, arXiv 2312.07330.

A field of embeddings says what shall be seen where; a patch model draws all windows of the image
jointly. The field comes from a reference image, from one or few images that are varied, or from
words, through a prior that draws grids of embeddings (section 3.4 of the paper).
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from gen.data.canvas import new_canvas
from gen.denoising import fresh_scheduler
from gen.embedding_field import EmbeddingField
from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.encoders.windows import ReadPixels
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration
from gen.known_region import KnownRegion
from gen.large_canvas import OnWindows, denoise_canvas, draw_canvas_noise
from gen.store.catalogue import resolve
from gen.store.loading import load_components
from gen.store.weight_files import read_object
from gen.tiling import Layout, bell, overlapping, shifted
from gen.types import Component, ModelCall, Process
from pipelines.large_fields import field_around, field_from_text, field_like, field_varied
from pipelines.large_guidance import GuidedWindows, OnDenoised
from pipelines.large_pixels import Write, keep_region, write_pixels
from pipelines.large_rarity import level_reached
from pipelines.minority import MinoritySampling, begin, read_calibration, sampling_for
from pipelines.outputs import LargeImages, check_output_type, present

Method = Literal["shift", "overlap"]
"""How windows lie: see `LargeImagePipeline.__call__`."""

NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 1.0  # of histo-mini: more looks hardly better, at twice the work
PRIOR_GUIDANCE_SCALE = 2.0
MICRONS_PER_PIXEL = 0.5
SHARED = 0.25  # of a window, with its neighbour: more breaks a sixth of the paper's calls
MAX_SIDE = 200_000  # pixels; a whole slide at 40x


class LargeImagePipeline(DiffusionPipeline):
    """Embeddings to images of any size, by windows of a patch model.

    Args:
        vae: decodes latents to images in [-1, 1]; `config.scaling_factor` is applied here.
        unet: predicts noise, v or x0 of a window, as the scheduler's `prediction_type` says.
        projection: embeddings and magnifications to what the U-Net attends to.
        scheduler: any diffusers scheduler; every call works on a copy of its own.
        prior, prior_scheduler, text_encoder, tokenizer: from words to grids of embeddings.
        minority_classifier: see `gen.models.minority_classifier`; its condition is the U-Net's.
        encoder: id or folder of the encoder whose embeddings the model knows.
        prior_pitch: pixels between the embeddings of a grid of the prior.
    """

    _optional_components = (
        "prior", "prior_scheduler", "text_encoder", "tokenizer", "minority_classifier",
    )  # fmt: skip

    def __init__(
        self,
        vae: Any,
        unet: Any,
        projection: Any,
        scheduler: Any,
        prior: Any = None,
        prior_scheduler: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        minority_classifier: Any = None,
        encoder: str = "histo-encoder-mini",
        prior_pitch: int = 64,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            projection=projection,
            scheduler=scheduler,
            prior=prior,
            prior_scheduler=prior_scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            minority_classifier=minority_classifier,
        )
        self.register_to_config(encoder=encoder, prior_pitch=prior_pitch)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        allow_download: bool = False,
    ) -> Self:
        """Load an embedded model, a folder or a hub id, safely.

        Raises:
            ModelRefused: see `gen.store.loading.load_components`.
            InvalidInput: the model is of another task.
        """
        parts = load_components(model_id, torch_dtype=torch_dtype, allow_download=allow_download)
        missing = {"vae", "unet", "projection", "scheduler"} - parts.keys()
        if missing:
            raise InvalidInput(
                f"model_id is {str(model_id)!r}, which has no {', '.join(sorted(missing))};"
                " choose an embedding-to-image model from `medphantom models list`"
            )
        # on windows this small, convolutions are a fifth faster so
        parts["unet"].to(memory_format=torch.channels_last)
        pipeline = cls(**parts, **pipeline_settings(model_id, allow_download))
        pipeline.register_to_config(_name_or_path=str(model_id))
        return pipeline

    @cached_property
    def weight_sha256(self) -> str:
        """Hash over all weight files of the model that was loaded, read once."""
        return resolve(self.config._name_or_path).weight_sha256

    @cached_property
    def embedder(self) -> Encoder:
        """The encoder whose embeddings the model knows."""
        return load_encoder(self.config.encoder, str(self.unet.device))

    @property
    def networks(self) -> dict[str, Component]:
        """What this pipeline's model calls name."""
        networks: dict[str, Component] = {
            "projection": self.projection,
            "null": self.projection.null,
            "embedder": lambda patches: self.embedder.embed(patches),
            "unet": lambda latents, timesteps, context: (
                self.unet(latents, timesteps, context).sample
            ),
            "encoder": lambda images: self.vae.encode(images).latent_dist.mean,
            "decoder": lambda latents: self.vae.decode(latents).sample,
            "text_encoder": lambda tokens: self.text_encoder(tokens)[0],
            "prior": lambda grids, timesteps, states: self.prior(grids, timesteps, states).sample,
        }
        if self.minority_classifier is not None:
            networks["minority_classifier"] = self.minority_classifier
        return networks

    @cached_property
    def minority_calibration(self) -> MinorityCalibration:
        """Of the model's card; see `pipelines.minority.read_calibration`."""
        return read_calibration(self.config._name_or_path)

    def minority_sampling(
        self, minority: float, minority_method: str | None = None, allow_common: bool = False
    ) -> MinoritySampling:
        """What reaches a level of rarity with this model: see `pipelines.minority.sampling_for`."""
        return sampling_for(
            lambda: self.minority_calibration, minority, minority_method, allow_common
        )

    def calibration_for(self, minority: MinoritySampling | None) -> MinorityCalibration | None:
        """What an image is measured by: the model's calibration, if a level was asked for."""
        asked = minority is not None and minority.level is not None
        return self.minority_calibration if asked else None

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def patch_size(self) -> int:
        """Side in pixels of the patches that the U-Net was trained on."""
        return int(self.unet.config.sample_size) * self.vae_scale_factor

    def __call__(
        self,
        field: EmbeddingField,
        height: int | None = None,
        width: int | None = None,
        method: Method = "shift",
        overlap: int | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        microns_per_pixel: float = MICRONS_PER_PIXEL,
        generator: torch.Generator | None = None,
        scheduler: Any = None,
        known: KnownRegion | None = None,
        minority: float | MinoritySampling | None = None,
        minority_method: str | None = None,
        allow_common: bool = False,
        output_type: str = "pil",
        on_windows: OnWindows = lambda *_: None,
    ) -> LargeImages:
        """Draw one image in memory; `process` writes it band by band instead.

        Args:
            field: of embeddings, from `field_like`, `field_varied` or `field_from_text`.
            height, width: in pixels; None is what the field covers. The field is stretched.
            method: "shift" moves a grid of windows at each step; "overlap" is the paper's, a
                window every quarter of a window and equal weights: six to eight times the calls.
            overlap: cells that neighbouring windows share; None is the method's own.
            num_inference_steps: solver steps.
            guidance_scale: classifier-free guidance, 1.0 = off.
            microns_per_pixel: magnification of the image.
            generator: of the noise and the shifts, on the CPU.
            scheduler: None is the pipeline's.
            known: a part of a real image that is kept.
            minority: how rare what is seen shall be: a quantile in [0, 1] of the minority scores
                of training patches of the magnification, for calibrated models, or a method with
                its strength; None leaves it to chance.
            minority_method: "boost_and_skip", "classifier" or "self_guided"; None is the cheapest
                that reaches the level.
            allow_common: levels below 0.5, which push the rare away, are meant.
            output_type: "pil", "np" or "pt".
            on_windows: told (windows drawn, of how many).

        Raises:
            InvalidInput: an argument breaks a rule.
        """
        check_output_type(output_type)
        if isinstance(minority, float | int):
            minority = self.minority_sampling(minority, minority_method, allow_common)
        bands: list[NDArray[np.uint8]] = []
        process = self.process(
            field,
            bands.append,
            height=height,
            width=width,
            method=method,
            overlap=overlap,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            microns_per_pixel=microns_per_pixel,
            generator=generator,
            scheduler=scheduler,
            known=known,
            minority=minority,
            calibration=self.calibration_for(minority),
            on_windows=on_windows,
        )
        reached = run(process, self.networks)
        pixels = torch.from_numpy(np.concatenate(bands)).movedim(-1, 0)[None] / 255
        levels = None if reached is None else [reached]
        return LargeImages(images=present(pixels, output_type), minority_reached=levels)

    def process(
        self,
        field: EmbeddingField,
        write: Write,
        *,
        height: int | None = None,
        width: int | None = None,
        method: Method = "shift",
        overlap: int | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        microns_per_pixel: float = MICRONS_PER_PIXEL,
        generator: torch.Generator | None = None,
        scheduler: Any = None,
        known: KnownRegion | None = None,
        minority: MinoritySampling | None = None,
        calibration: MinorityCalibration | None = None,
        folder: Path | None = None,
        on_windows: OnWindows = lambda *_: None,
        on_denoised: OnDenoised | None = None,
    ) -> Process[float | None]:
        """The algorithm of `__call__`, for an engine; finished bands of pixels go to `write`.

        Returns the level that the image reached, if it is to be measured.

        Args:
            field, height, width, method, overlap, num_inference_steps, guidance_scale,
            microns_per_pixel, generator, scheduler, known, minority, on_windows: see `__call__`.
            write: gets bands (h, W, 3) uint8 from the top down, after the last step.
            calibration: by which the level is measured; None measures nothing.
            folder: for latents; None is the system's for temporary files.
            on_denoised: told after each row of windows, before `on_windows`.
        """
        height = field.size[0] if height is None else height
        width = field.size[1] if width is None else width
        self.check_inputs(field, height, width, microns_per_pixel)
        if known is not None:
            known.check(height, width, self.vae_scale_factor)
        field = field.stretched(height, width)
        scheduler = fresh_scheduler(scheduler or self.scheduler, num_inference_steps)
        generator = generator or _unseeded()
        # noise is drawn in bands, none of which holds the long waves of the whole
        scale, skip = begin(minority, torch.ones(()), scheduler, long_waves=None)
        guided = GuidedWindows(
            self, field, microns_per_pixel, guidance_scale, scheduler, generator, minority,
            on_denoised,
        )  # fmt: skip
        cells = self.canvas_size(height, width)
        layouts, weights = self.layouts(cells, method, overlap, len(scheduler.timesteps), generator)

        def draw() -> Process[float | None]:
            with ExitStack() as stack:
                place = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
                channels = self.unet.config.in_channels
                canvas = stack.enter_context(new_canvas(place, channels, *cells))
                draw_canvas_noise(canvas, layouts[0].side, float(scale), generator)
                predict = yield from guided.predict()
                keep = None
                if known is not None:
                    keep = yield from keep_region(self, known, scheduler, generator)
                yield from denoise_canvas(
                    canvas,
                    scheduler,
                    predict,
                    layouts,
                    weights,
                    generator,
                    place,
                    self.unet.device,
                    self.unet.dtype,
                    keep,
                    on_windows,
                    skip,
                )
                reached = None
                if calibration is not None:
                    seed = generator.initial_seed()
                    reached = yield from level_reached(
                        self, calibration, canvas, field, microns_per_pixel, seed, known
                    )
                yield from write_pixels(self, canvas, height, width, write, known)
                return reached

        return draw()

    def field_like(self, read: ReadPixels, height: int, width: int) -> Process[EmbeddingField]:
        """The field of a reference image of height x width pixels, read in bands.

        `read` is given (top, left, height, width) in pixels and returns uint8 (height, width, 3).
        """
        return field_like(read, height, width, self.patch_size)

    def field_varied(
        self,
        images: Sequence[NDArray[np.uint8]],
        height: int,
        width: int,
        generator: torch.Generator | None = None,
    ) -> Process[EmbeddingField]:
        """A field that shows everywhere something of the images (h, w, 3): one or few, any size."""
        return field_varied(images, height, width, self.patch_size, generator)

    def field_around(
        self,
        known: KnownRegion,
        height: int,
        width: int,
        generator: torch.Generator | None = None,
    ) -> Process[EmbeddingField]:
        """A field that shows what is kept of a real image, and around it something of the same."""
        known.check(height, width, self.vae_scale_factor)
        return field_around(known, height, width, self.patch_size, generator)

    def field_from_text(
        self,
        prompt: str,
        height: int,
        width: int,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        guidance_scale: float = PRIOR_GUIDANCE_SCALE,
        generator: torch.Generator | None = None,
        folder: Path | None = None,
    ) -> Process[EmbeddingField]:
        """A field drawn by the prior for a sentence.

        Raises:
            InvalidInput: the model has no prior.
        """
        if self.prior is None or self.text_encoder is None:
            raise InvalidInput(
                f"model {self.config._name_or_path!r} has no prior, which text needs; give a"
                " reference image, or train one with `medphantom train embedding-prior`"
            )
        check_size(height, width)
        tokens = self.tokenizer(
            [prompt, ""],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return field_from_text(
            tokens.input_ids.to(self.text_encoder.device),
            height,
            width,
            self.prior,
            self.config.prior_pitch,
            self.prior_scheduler,
            num_inference_steps,
            guidance_scale,
            generator or _unseeded(),
            folder,
        )

    def check_inputs(
        self, field: EmbeddingField, height: int, width: int, microns_per_pixel: float
    ) -> None:
        """Raise InvalidInput if an argument breaks a rule."""
        check_size(height, width)
        if not 0 < microns_per_pixel < math.inf:
            raise InvalidInput(
                f"microns_per_pixel is {microns_per_pixel}, but must be a positive number; try 0.5"
            )
        field.check_dim(int(self.projection.config.embedding_dim))

    def canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """Cells that hold an image, and at least one window; what is too much is cut off."""
        side = int(self.unet.config.sample_size)
        factor = self.vae_scale_factor
        return max(side, -(-height // factor)), max(side, -(-width // factor))

    def layouts(
        self,
        cells: tuple[int, int],
        method: Method,
        overlap: int | None,
        num_steps: int,
        generator: torch.Generator,
    ) -> tuple[list[Layout], Tensor]:
        """Where the windows of each step lie, and the weights (side, side) of their cells."""
        side = int(self.unet.config.sample_size)
        if method == "overlap":
            stride = side // 4 if overlap is None else side - overlap
            return [overlapping(*cells, side, stride)] * num_steps, torch.ones(side, side)
        if method != "shift":
            raise InvalidInput(f"method is {method!r}, but must be 'shift' or 'overlap'")
        shared = int(SHARED * side) if overlap is None else overlap
        return shifted(*cells, side, shared, num_steps, generator), bell(side)

    def decode_patches(self, latents: Tensor) -> Process[Tensor]:
        """Images (N, C, H, W) in about [-1, 1] of scaled latents, recorded if these are."""
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return (yield ModelCall("decoder", (latents,), latents.requires_grad))


def check_size(height: int, width: int) -> None:
    """Raise InvalidInput unless an image of that size can be drawn."""
    for name, side in (("height", height), ("width", width)):
        if not 1 <= side <= MAX_SIDE:
            raise InvalidInput(f"{name} is {side}, but must be from 1 to {MAX_SIDE} pixels")


def pipeline_settings(model_id: str | Path, allow_download: bool = False) -> dict[str, Any]:
    """The pipeline's own settings from its model_index.json."""
    index = read_object(resolve(model_id, allow_download).path / "model_index.json")
    return {name: index[name] for name in ("encoder", "prior_pitch") if name in index}


def _unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator
