"""Chest X-rays from a sentence: latent diffusion with classifier-free guidance.

Rombach et al. 2022 (latent diffusion), as tuned to radiographs by RoentGen (arXiv 2211.12737).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from gen.denoising import OnStep, denoise, draw_noise, fresh_scheduler
from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.classifier_free import classifier_free
from gen.guidance.learnt_word import encode_with_word, mean_word
from gen.guidance.minority import MinorityCalibration
from gen.store.catalogue import resolve
from gen.store.loading import load_components
from gen.types import Component, ModelCall, Predict, Process
from pipelines.minority import (
    Guided,
    MinoritySampling,
    begin,
    read_calibration,
    sampling_for,
)
from pipelines.outputs import ChestXrays, check_output_type, present
from pipelines.rarity import levels_reached

Generators = torch.Generator | Sequence[torch.Generator] | None
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 1.5  # of cxr-mini: more makes images of one prompt more alike than real ones


class TextToCXRPipeline(DiffusionPipeline):
    """Text to chest X-ray with any Stable-Diffusion-shaped model of one or three channels.

    Args:
        vae: decodes latents to images in [-1, 1]; `config.scaling_factor` is applied here.
        text_encoder: its first output (N, L, D) conditions the U-Net.
        tokenizer: of the text encoder.
        unet: predicts noise, v or x0 as the scheduler's `prediction_type` says.
        scheduler: any diffusers scheduler; every call works on a copy of its own.
        minority_classifier: see `gen.models.minority_classifier`; without it, the minority method
            "classifier" is refused.
    """

    _optional_components = ("minority_classifier",)
    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        minority_classifier: Any = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            minority_classifier=minority_classifier,
        )

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        lora: str | Path | None = None,
        allow_download: bool = False,
    ) -> Self:
        """Load an embedded model, a folder, a hub id or a Stable Diffusion checkpoint, safely.

        Raises:
            ModelRefused: see `gen.store.loading.load_components`.
        """
        parts = load_components(
            model_id, torch_dtype=torch_dtype, lora=lora, allow_download=allow_download
        )
        pipeline = cls(**{name: parts[name] for name in cls._needed(parts, model_id)})
        pipeline.register_to_config(_name_or_path=str(model_id))
        return pipeline

    @classmethod
    def _needed(cls, parts: Mapping[str, Any], model_id: str | Path) -> list[str]:
        names = ["vae", "text_encoder", "tokenizer", "unet", "scheduler"]
        missing = [name for name in names if name not in parts]
        if missing:
            raise InvalidInput(
                f"model_id is {str(model_id)!r}, which has no {', '.join(missing)};"
                " choose a text-to-image model from `medphantom models list`"
            )
        return names + [name for name in cls._optional_components if name in parts]

    @cached_property
    def weight_sha256(self) -> str:
        """Hash over all weight files of the model that was loaded, read once."""
        return resolve(self.config._name_or_path).weight_sha256

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

    @cached_property
    def embedder(self) -> Encoder:
        """What images are embedded with to tell how rare they are."""
        return load_encoder(self.minority_calibration.score.encoder or "", self.device.type)

    @property
    def networks(self) -> dict[str, Component]:
        """What this pipeline's model calls name."""
        networks: dict[str, Component] = {
            "text_encoder": lambda *tokens: self.text_encoder(*tokens)[0],
            "word_encoder": lambda *rows: encode_with_word(self.text_encoder, *rows),
            "mean_word": lambda *rows: mean_word(self.text_encoder, *rows),
            "unet": lambda sample, timesteps, condition: (
                self.unet(sample, timesteps, encoder_hidden_states=condition).sample
            ),
            "decoder": lambda latents: self.vae.decode(latents).sample,
            "embedder": lambda images: self.embedder.embed(images),
        }
        if self.minority_classifier is not None:
            networks["minority_classifier"] = self.minority_classifier
        return networks

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def default_size(self) -> int:
        """Side in pixels of the images the U-Net was trained on."""
        return int(self.unet.config.sample_size) * self.vae_scale_factor

    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        minority: float | MinoritySampling | None = None,
        minority_method: str | None = None,
        allow_common: bool = False,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
    ) -> ChestXrays:
        """Synthesise `num_images_per_prompt` chest X-rays for each prompt.

        Args:
            prompt: one sentence or several.
            negative_prompt: what guidance moves away from; None is the empty sentence.
            height, width: in pixels, multiples of `vae_scale_factor`; None is the training size.
            num_inference_steps: solver steps.
            guidance_scale: classifier-free guidance, 1.0 = off.
            guidance_interval: fractions of the noise schedule (0 clean, 1 noise) it is active in.
            generator: one an image, or one for all, drawn from in their order.
            latents: (N, c, h, w) unit variance, instead of drawn ones.
            minority: how rare the images shall be, a quantile in [0, 1] of the training data's
                minority scores, or a method with its strength; None leaves it to chance.
            minority_method: "boost_and_skip", "classifier", "self_guided" or "prompt"; None is the
                cheapest that reaches the level.
            allow_common: levels below 0.5, which push the rare away, are meant.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as diffusers calls it, may return {"latents": ...}.

        Raises:
            InvalidInput: an argument breaks a rule.
        """
        check_output_type(output_type)

        def on_step(index: int, timestep: Tensor, latents: Tensor, _: Tensor) -> Tensor | None:
            if callback_on_step_end is None:
                return None
            changed = callback_on_step_end(self, index, timestep, {"latents": latents})
            return (changed or {}).get("latents")

        if isinstance(minority, float | int):
            minority = self.minority_sampling(minority, minority_method, allow_common)
        process = self.process_scored(
            prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            minority=minority,
            on_step=on_step,
            decode=output_type != "latent",
        )
        result, reached = run(process, self.networks)
        images = result if output_type == "latent" else present(result, output_type)
        return ChestXrays(images=images, minority_reached=reached)

    def process_scored(
        self,
        prompt: str | list[str],
        *,
        minority: MinoritySampling | None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        decode: bool = True,
        **sampling: Any,
    ) -> Process[tuple[Tensor, list[float] | None]]:
        """As `process`, and if `minority` is asked for, the level that each image reached."""
        prompts = _repeat(prompt, num_images_per_prompt)
        generators = _one_an_image(generator, len(prompts))
        drawn = self.process(
            prompt,
            num_images_per_prompt=num_images_per_prompt,
            generator=generators,
            minority=minority,
            decode=False,
            **sampling,
        )
        calibration = None if minority is None else self.minority_calibration

        def score() -> Process[tuple[Tensor, list[float] | None]]:
            latents = yield from drawn
            reached = None
            if calibration is not None:
                seeds = [each.initial_seed() for each in generators]
                reached = yield from levels_reached(self, calibration, latents, prompts, seeds)
            return (yield from self.decode(latents)) if decode else latents, reached

        return score()

    def process(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        scheduler: Any = None,
        minority: MinoritySampling | None = None,
        on_step: OnStep | None = None,
        decode: bool = True,
    ) -> Process[Tensor]:
        """The algorithm of `__call__`, for an engine: images (N, C, H, W) in [0, 1], or latents.

        Arguments are checked and the scheduler (None: the pipeline's) is copied here, before the
        first step.
        """
        prompts = _repeat(prompt, num_images_per_prompt)
        negatives = _repeat(_as_many(negative_prompt, prompt), num_images_per_prompt)
        height, width = height or self.default_size, width or self.default_size
        self.check_inputs(prompts, height, width, num_inference_steps)
        generators = _one_an_image(generator, len(prompts))
        scheduler = fresh_scheduler(
            scheduler or self.scheduler, num_inference_steps, self.unet.device
        )
        if latents is None:
            latents = draw_noise(self.latent_shape(height, width), generators)

        def sample(latents: Tensor) -> Process[Tensor]:
            condition, null = yield from self.encode_prompts(prompts, negatives)
            noise = latents.to(self.unet.device, condition.dtype)
            latents, skip = begin(minority, noise, scheduler)
            guided = Guided(
                self, prompts, condition, null, guidance_scale, guidance_interval, generators
            )
            predict = yield from guided.predict(minority)
            latents = yield from denoise(latents, scheduler, predict, generators, on_step, skip)
            return (yield from self.decode(latents)) if decode else latents

        return sample(latents)

    def check_inputs(
        self, prompts: Sequence[str], height: int, width: int, num_inference_steps: int
    ) -> None:
        """Raise InvalidInput if an argument breaks a rule."""
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InvalidInput("prompt must be a sentence or a list of at least one sentence")
        takes, answers = self.unet.config.in_channels, self.unet.config.out_channels
        if takes != answers:
            raise InvalidInput(
                f"the model's U-Net takes {takes} channels for {answers} of latents, as one trained"
                " for inpainting does; choose a text-to-image model from `medphantom models list`"
            )
        factor = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for name, side in (("height", height), ("width", width)):
            if side < factor or side % factor:
                nearest = max(factor, round(side / factor) * factor)
                raise InvalidInput(
                    f"{name} is {side}, but must be a multiple of {factor}; try {nearest}"
                )
        most = self.scheduler.config.num_train_timesteps
        if not 1 <= num_inference_steps <= most:
            raise InvalidInput(
                f"num_inference_steps is {num_inference_steps}, but must be from 1 to {most};"
                f" try {NUM_INFERENCE_STEPS}"
            )

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (c, h, w) of the latents of one image."""
        factor = self.vae_scale_factor
        return self.unet.config.in_channels, height // factor, width // factor

    def encode_prompts(
        self, prompts: list[str], negatives: list[str]
    ) -> Process[tuple[Tensor, Tensor]]:
        """Conditions (N, L, D) of prompts and of what guidance moves away from; each text once."""
        texts = sorted({*prompts, *negatives})
        tokens = self._tokens(texts)
        rows = [tokens.input_ids.to(self.text_encoder.device)]
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            rows.append(tokens.attention_mask.to(self.text_encoder.device))
        states = yield ModelCall("text_encoder", tuple(rows))
        states = states.to(self.unet.dtype)
        place = {text: row for row, text in enumerate(texts)}
        return (
            states[[place[prompt] for prompt in prompts]],
            states[[place[negative] for negative in negatives]],
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Token ids (N, L) on the text encoder's device."""
        ids: Tensor = self._tokens(texts).input_ids.to(self.text_encoder.device)
        return ids

    def _tokens(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )

    def guided(
        self,
        condition: Tensor,
        null: Tensor,
        guidance_scale: float,
        guidance_interval: tuple[float, float],
    ) -> Predict:
        """The U-Net under classifier-free guidance."""
        steps = self.scheduler.config.num_train_timesteps
        return classifier_free(
            self.predict, condition, null, guidance_scale, guidance_interval, steps
        )

    def predict(
        self, latents: Tensor, timestep: Tensor, condition: Tensor, needs_grad: bool = False
    ) -> Process[Tensor]:
        """The U-Net's answer (N, c, h, w) at a timestep () under a condition (N, L, D)."""
        timesteps = timestep.to(latents.device).expand(len(latents))
        return (yield ModelCall("unet", (latents, timesteps, condition), needs_grad))

    def decode(self, latents: Tensor, needs_grad: bool = False) -> Process[Tensor]:
        """Images (N, C, H, W) in [0, 1] of latents."""
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        images = yield ModelCall("decoder", (latents,), needs_grad)
        return (images / 2 + 0.5).clamp(0, 1)


def _repeat(prompt: str | list[str], num_images_per_prompt: int) -> list[str]:
    if num_images_per_prompt < 1:
        raise InvalidInput(
            f"num_images_per_prompt is {num_images_per_prompt}, but must be at least 1"
        )
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    return [each for each in prompts for _ in range(num_images_per_prompt)]


def _as_many(negative: str | list[str] | None, prompt: str | list[str]) -> list[str]:
    """One negative prompt a prompt."""
    count = 1 if isinstance(prompt, str) else len(prompt)
    negatives = [negative or ""] * count if not isinstance(negative, list) else negative
    if len(negatives) != count:
        raise InvalidInput(
            f"negative_prompt has {len(negatives)} sentences for {count} prompts;"
            " give one for all or one for each"
        )
    return negatives


def _one_an_image(generator: Generators, num_images: int) -> list[torch.Generator]:
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        return [generator] * num_images
    if len(generator) != num_images:
        raise InvalidInput(
            f"generator has {len(generator)} generators for {num_images} images;"
            " give one for all or one for each"
        )
    return list(generator)
