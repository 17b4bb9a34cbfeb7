"""Chest X-rays that a text-to-image model scores under their prompts, and draws for prompts."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gen.data.collection import read_collection
from gen.denoising import make_generators
from gen.encoders.loading import load_encoder
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration, ScoreSettings
from gen.training.captioned import encode_images
from jobs.minority_subjects import OTHER, Subject
from jobs.targets import Drawn, Pictures, seed_of, shuffled
from pipelines.rarity import levels_reached, score_latents
from pipelines.text_to_cxr import GUIDANCE_SCALE, TextToCXRPipeline

if TYPE_CHECKING:
    from gen.types import Component
    from jobs.minority_calibration import CalibrationConfig
    from jobs.minority_scores import ScoresConfig
    from pipelines.minority import MinoritySampling

ENCODER = "cxr-encoder-mini"
DRAWN_TOGETHER = 8


class ChestScorer:
    """Every image of a split, under its own prompt.

    Raises:
        ModelRefused: see `gen.store.loading.load_components`.
    """

    def __init__(self, config: "ScoresConfig") -> None:
        self._config = config
        self._pipeline = load_pipeline(config.model)
        self.weight_sha256 = self._pipeline.weight_sha256
        encoder = (config.encoder or ENCODER) if config.distance == "encoder" else None
        self.settings: dict[str, Any] = {"encoder": encoder}
        self._networks = networks_with(self._pipeline, encoder)
        found = read_collection(config.data, config.split)
        self._items = {item.name: item for item in found.items}
        self._omissions = found.omissions
        self._pictures = Pictures(self._pipeline.default_size)
        self.subjects = [
            Subject(item.name, item.name, item.labels.kind if item.labels else OTHER)
            for item in found.items
        ]

    def scores(self, names: Collection[str]) -> Iterator[dict[str, float]]:
        """See `Scorer`."""
        asked = (item for name, item in self._items.items() if name in names)
        usable = self._pictures.usable(asked)
        while batch := list(islice(usable, self._config.batch_size)):
            values = self._score(batch)
            yield {each.item.name: value for each, value in zip(batch, values, strict=True)}

    def omissions(self) -> list[str]:
        """See `Scorer`."""
        return [*self._omissions, *self._pictures.lines()]

    def _score(self, batch: Sequence[Drawn]) -> list[float]:
        config, pipeline = self._config, self._pipeline
        pixels = torch.stack([each.pixels for each in batch])
        process = score_latents(
            pipeline,
            encode_images(pipeline.vae, pixels, pipeline.unet.device),
            [each.item.prompt or "" for each in batch],
            make_generators([seed_of(config.seed, each.item.name) for each in batch]),
            config.distance,
            config.noise_level,
            config.num_draws,
        )
        return [float(value) for value in run(process, self._networks)]


class ChestDrawer:
    """Images of prompts of a split, a prompt and a seed each.

    Raises:
        InvalidInput: there are too few prompts.
        ModelRefused: see `gen.store.loading.load_components`.
    """

    def __init__(self, config: "CalibrationConfig", score: ScoreSettings) -> None:
        self._config = config
        self._pipeline = load_pipeline(config.model)
        self._networks = networks_with(self._pipeline, score.encoder)
        self._prompts = draw_prompts(read_collection(config.data, config.split).items, config)
        self.num_images = len(self._prompts)
        self.has_classifier = self._pipeline.minority_classifier is not None

    def levels(self, calibration: MinorityCalibration, sampling: "MinoritySampling") -> list[float]:
        """See `Drawer`."""
        config, pipeline = self._config, self._pipeline
        guidance_scale = GUIDANCE_SCALE if config.guidance_scale is None else config.guidance_scale
        levels: list[float] = []
        for start in range(0, self.num_images, DRAWN_TOGETHER):
            some = self._prompts[start : start + DRAWN_TOGETHER]
            seeds = range(config.seed + start, config.seed + start + len(some))
            drawn = pipeline.process(
                some,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=guidance_scale,
                generator=make_generators(seeds),
                minority=sampling,
                decode=False,
            )
            latents = run(drawn, self._networks)
            measured = levels_reached(pipeline, calibration, latents, some, seeds)
            levels += run(measured, self._networks)
        return levels


def load_pipeline(model: str) -> TextToCXRPipeline:
    """In single precision, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TextToCXRPipeline.from_pretrained(model, torch_dtype=torch.float32).to(device)


def networks_with(pipeline: TextToCXRPipeline, encoder: str | None) -> "dict[str, Component]":
    """The pipeline's, with the encoder that distances are measured by, if one is."""
    networks = pipeline.networks
    if encoder is not None:
        networks["embedder"] = load_encoder(encoder, pipeline.device.type).embed
    return networks


def draw_prompts(items: Sequence[Any], config: "CalibrationConfig") -> list[str]:
    """Prompts of a split, in a drawn order.

    Raises:
        InvalidInput: there are fewer.
    """
    prompts = [each.prompt for each in items if each.prompt]
    if len(prompts) < config.n:
        raise InvalidInput(
            f"n is {config.n}, but split {config.split!r} has only {len(prompts)} prompts; lower n"
        )
    return shuffled(prompts, np.random.default_rng(config.seed))[: config.n]
