"""How rare a patch model finds tissue: minority scores of patches, and of places of an image."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.data.canvas import Canvas
from gen.denoising import make_generators
from gen.embedding_field import EmbeddingField
from gen.guidance.minority import DistanceKind, MinorityCalibration
from gen.guidance.minority_score import NOISE_LEVEL, NUM_DRAWS, minority_scores
from gen.known_region import KnownRegion
from gen.noising import Noising
from gen.types import ModelCall, Process
from pipelines.large_guidance import predict_patches
from pipelines.rarity import distance_of

if TYPE_CHECKING:
    from pipelines.large_image import LargeImagePipeline

MOST_PLACES = 8  # of an image along a side: of more, the median hardly moves


def kind_of(microns_per_pixel: float) -> str:
    """Of patches whose scores compare: those of a magnification."""
    return f"{microns_per_pixel:g} microns a pixel"


def score_patches(
    pipeline: "LargeImagePipeline",
    latents: Tensor,
    embeddings: Tensor,
    microns_per_pixel: float | Tensor,
    generators: Sequence[torch.Generator],
    kind: DistanceKind = "encoder",
    noise_level: float = NOISE_LEVEL,
    num_draws: int = NUM_DRAWS,
) -> Process[Tensor]:
    """Minority scores (N,) of patches under their embeddings, without guidance.

    Args:
        latents: (N, c, s, s), scaled, of patches.
        embeddings: (N, D) of them.
        microns_per_pixel: of all, or (N,) of each.
        generators: one for each.
        kind: "encoder" is the model's own.
        noise_level, num_draws: see `gen.guidance.minority_score.minority_scores`.
    """
    unet = pipeline.unet
    latents = latents.to(unet.device, unet.dtype)
    scale = torch.as_tensor(microns_per_pixel, dtype=torch.float32, device=unet.device)
    embeddings = embeddings.to(unet.device, unet.dtype)
    context = yield ModelCall("projection", (embeddings, scale.expand(len(embeddings))))

    def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield from predict_patches(latents, timestep, context))

    noising = Noising(pipeline.scheduler)
    distance = distance_of(kind, pipeline.decode_patches)
    return (
        yield from minority_scores(
            latents, predict, noising, generators, distance, noise_level, num_draws
        )
    )


def level_reached(
    pipeline: "LargeImagePipeline",
    calibration: MinorityCalibration,
    canvas: Canvas,
    field: EmbeddingField,
    microns_per_pixel: float,
    seed: int,
    known: KnownRegion | None = None,
) -> Process[float | None]:
    """The median level of places of a finished image; None if a real one is kept at them all.

    Places are patches, as many as fit side by side and at most `MOST_PLACES` in a row or column;
    the level of one is its score among training patches of the magnification.

    Args:
        pipeline: what scores.
        calibration: of its model.
        canvas: clean latents.
        field: of embeddings that was asked for, in pixels.
        microns_per_pixel: of the image.
        seed: of the noise that the first place is scored with; it counts up.
        known: places whose middle is kept of a real image say nothing of what was drawn.
    """
    side, factor = int(pipeline.unet.config.sample_size), pipeline.vae_scale_factor
    score = calibration.score
    levels: list[float] = []
    for top, lefts in places(canvas.height, canvas.width, side):
        centres = torch.tensor([[top + side / 2, left + side / 2] for left in lefts]) * factor
        drawn = [not is_kept(known, *centre) for centre in centres.tolist()]
        if not any(drawn):
            continue
        rows = canvas.read(top, top + side)
        latents = torch.stack([rows[:, :, left : left + side] for left in lefts])[drawn]
        seeds = range(seed + len(levels), seed + len(levels) + len(latents))
        scores = yield from score_patches(
            pipeline,
            latents,
            field.at(centres[drawn]),
            microns_per_pixel,
            make_generators(seeds),
            score.distance,
            score.noise_level,
            score.num_draws,
        )
        kind = kind_of(microns_per_pixel)
        levels += [calibration.quantile(value, kind) for value in scores.tolist()]
    return float(torch.tensor(levels).quantile(0.5)) if levels else None


def places(height: int, width: int, side: int) -> Iterator[tuple[int, list[int]]]:
    """Rows of squares of `side` cells spread over height x width, each (top, lefts)."""
    tops, lefts = (_spread(length, side) for length in (height, width))
    for top in tops:
        yield top, lefts


def _spread(length: int, side: int) -> list[int]:
    count = min(MOST_PLACES, max(1, length // side))
    return [int(start) for start in torch.linspace(0, length - side, count)]


def is_kept(known: KnownRegion | None, y: float, x: float) -> bool:
    """Whether a pixel is a real image's."""
    if known is None:
        return False
    row, column = int(y) - known.top, int(x) - known.left
    height, width = known.kept.shape
    return 0 <= row < height and 0 <= column < width and bool(known.kept[row, column])
