"""How rare a text-to-image model finds images, of others or its own: their minority scores."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.data.prompt_labels import labels_in
from gen.denoising import make_generators
from gen.guidance.minority import DistanceKind, MinorityCalibration
from gen.guidance.minority_score import (
    NOISE_LEVEL,
    NUM_DRAWS,
    Distance,
    encoder_distance,
    minority_scores,
    pixel_distance,
    squared_error,
)
from gen.noising import Noising
from gen.types import Process

if TYPE_CHECKING:
    from pipelines.text_to_cxr import TextToCXRPipeline

Decode = Callable[[Tensor], Process[Tensor]]
"""Scaled latents (N, c, h, w) to images (N, C, H, W)."""


def score_latents(
    pipeline: "TextToCXRPipeline",
    latents: Tensor,
    prompts: list[str],
    generators: Sequence[torch.Generator],
    kind: DistanceKind = "encoder",
    noise_level: float = NOISE_LEVEL,
    num_draws: int = NUM_DRAWS,
) -> Process[Tensor]:
    """Minority scores (N,) of scaled latents (N, c, h, w) under their prompts, without guidance.

    With `kind` "encoder", the engine's component `embedder` answers embeddings (N, D) of unit
    length of images (N, C, H, W) in [-1, 1].
    """
    condition, _ = yield from pipeline.encode_prompts(prompts, [])
    latents = latents.to(pipeline.unet.device, condition.dtype)

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield from pipeline.predict(latents, timestep, condition))

    noising = Noising(pipeline.scheduler)
    distance = distance_of(kind, shown_by(pipeline))
    return (
        yield from minority_scores(
            latents, predict, noising, generators, distance, noise_level, num_draws
        )
    )


def shown_by(pipeline: "TextToCXRPipeline") -> Decode:
    """What makes images in [-1, 1] of a pipeline's latents, recorded if the latents are."""

    def decode(latents: Tensor) -> Process[Tensor]:
        return (yield from pipeline.decode(latents, latents.requires_grad)) * 2 - 1

    return decode


def distance_of(kind: DistanceKind, decode: Decode) -> Distance:
    """Of latents, of their pixels, or of the embeddings of these.

    Args:
        kind: with "encoder", see `score_latents` for what the engine must know.
        decode: latents to images in [-1, 1], recorded if the latents are.
    """
    kinds: dict[DistanceKind, Callable[[], Distance]] = {
        "latent": lambda: squared_error,
        "pixel": lambda: pixel_distance(decode),
        "encoder": lambda: encoder_distance(decode, "embedder"),
    }
    return kinds[kind]()


def levels_reached(
    pipeline: "TextToCXRPipeline",
    calibration: MinorityCalibration,
    latents: Tensor,
    prompts: list[str],
    seeds: Sequence[int],
) -> Process[list[float]]:
    """The level of each of finished latents (N, c, h, w): its score among its kind.

    Args:
        pipeline: what scores.
        calibration: of its model.
        latents: of the images.
        prompts: of each.
        seeds: of the noise that each is scored with.
    """
    score = calibration.score
    scores = yield from score_latents(
        pipeline,
        latents,
        prompts,
        make_generators(seeds),
        score.distance,
        score.noise_level,
        score.num_draws,
    )
    kinds = [labels_in(prompt).kind for prompt in prompts]
    return [
        calibration.quantile(value, kind)
        for value, kind in zip(scores.tolist(), kinds, strict=True)
    ]
