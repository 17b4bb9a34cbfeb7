"""How rare places of a large image are, and levels of a tiny patch model."""

import shutil
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.canvas import new_canvas
from gen.denoising import make_generators
from gen.embedding_field import EmbeddingField
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration, ScoreSettings
from gen.known_region import KnownRegion
from gen.store.card import write_card
from pipelines.large_image import LargeImagePipeline
from pipelines.large_rarity import level_reached, places, score_patches
from pipelines.minority import MinoritySampling

DIM, STEPS, SIDE = 8, 9, 8  # cells of a window
CALIBRATION = MinorityCalibration(
    score=ScoreSettings(distance="latent", noise_level=0.6, num_draws=1),
    scores={"all": (0.0, 1000.0), "0.5 microns a pixel": (0.0, 10.0)},
    strengths={"boost_and_skip": ((0.4, 1.0), (0.9, 1.5))},
)
FIELD = EmbeddingField(torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0)), (32, 32))


@pytest.fixture(scope="module")
def pipeline(
    tiny_large_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> LargeImagePipeline:
    """With a card that says what reaches which level."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(tiny_large_model, folder)
    write_card(
        folder, id="tiny", task="embedding-to-image", modality="SM", image_size=32,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, limits=("random",),
        calibration={"minority": CALIBRATION.model_dump(mode="json")},
    )  # fmt: skip
    return LargeImagePipeline.from_pretrained(folder)


def drawn(pipeline: LargeImagePipeline, minority: Any, **more: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    return pipeline(
        FIELD, num_inference_steps=STEPS, generator=generator, minority=minority,
        output_type="pt", **more,
    )  # fmt: skip


def level(
    pipeline: LargeImagePipeline, latents: Tensor, known: KnownRegion | None = None, seed: int = 0
) -> float | None:
    """Of clean latents (C, H, W)."""
    with new_canvas(Path(gettempdir()), *latents.shape) as canvas:
        canvas.write(0, latents)
        process = level_reached(pipeline, CALIBRATION, canvas, FIELD, 0.5, seed, known)
        return run(process, pipeline.networks)


def scores(pipeline: LargeImagePipeline, latents: Tensor, centres: Tensor, seed: int) -> Tensor:
    process = score_patches(
        pipeline,
        latents,
        FIELD.at(centres),
        0.5,
        make_generators(range(seed, seed + len(latents))),
        "latent",
        0.6,
        1,
    )
    return run(process, pipeline.networks)


def test_places_lie_side_by_side_and_are_few_in_large_images() -> None:
    assert list(places(16, 30, 8)) == [(0, [0, 11, 22]), (8, [0, 11, 22])]
    assert list(places(8, 8, 8)) == [(0, [0])]
    many = list(places(1000, 8, 8))
    assert len(many) == 8
    assert (many[0][0], many[-1][0]) == (0, 992)


def test_a_level_is_the_median_score_of_places_among_the_magnifications(
    pipeline: LargeImagePipeline,
) -> None:
    latents = torch.randn(4, 8, 24, generator=torch.Generator().manual_seed(3))
    windows = torch.stack(latents.split(8, dim=2))
    centres = torch.tensor([[16.0, 16.0], [16.0, 48.0], [16.0, 80.0]])
    found = scores(pipeline, windows, centres, seed=5)
    assert level(pipeline, latents, seed=5) == pytest.approx(float(found.median()) / 10)


def test_what_is_kept_of_a_real_image_is_not_measured(pipeline: LargeImagePipeline) -> None:
    latents = torch.randn(4, 8, 24, generator=torch.Generator().manual_seed(3))
    known = KnownRegion(np.zeros((32, 64, 3), np.uint8), top=0, left=0)
    (last,) = scores(pipeline, latents[None, :, :, 16:], torch.tensor([[16.0, 80.0]]), 5).tolist()
    assert level(pipeline, latents, known, 5) == pytest.approx(last / 10)
    all_of_it = KnownRegion(np.zeros((32, 96, 3), np.uint8), top=0, left=0)
    assert level(pipeline, latents, all_of_it) is None


def test_a_level_becomes_the_calibrated_strength_and_what_was_reached_is_told(
    pipeline: LargeImagePipeline,
) -> None:
    rare = drawn(pipeline, 0.9)
    by_strength = drawn(pipeline, MinoritySampling("boost_and_skip", 1.5))
    assert torch.equal(rare.images, by_strength.images)
    assert not torch.equal(rare.images, drawn(pipeline, None).images)
    (reached,) = rare.minority_reached
    assert 0 <= reached <= 1
    # nobody asked for a level
    assert by_strength.minority_reached is None
    assert drawn(pipeline, None).minority_reached is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"minority": 0.95}, r"which no method reaches .* boost_and_skip 0\.40 to 0\.90"),
        ({"minority": 0.9, "minority_method": "classifier"}, "no calibration"),
        ({"minority": 0.9, "minority_method": "louder"}, "must be one of"),
        ({"minority": 0.45}, "pushes rare images away"),
        ({"minority": 2.0}, "quantile from 0 to 1"),
    ],
)
def test_levels_that_cannot_be_had_are_refused(
    pipeline: LargeImagePipeline, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        drawn(pipeline, **arguments)


def test_self_guidance_climbs_the_distance_that_it_is_told(pipeline: LargeImagePipeline) -> None:
    images = [
        drawn(pipeline, MinoritySampling("self_guided", 1.0, distance=kind)).images
        for kind in ("latent", "pixel", "encoder")
    ]
    plain = drawn(pipeline, None).images
    for image in images:
        assert image.isfinite().all()
        assert (image - plain).abs().mean() > 1e-3
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_gradients_of_wide_images_are_computed_in_parts(
    pipeline: LargeImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = MinoritySampling("self_guided", 1.0, distance="pixel")
    whole = drawn(pipeline, guided).images
    monkeypatch.setattr("pipelines.large_guidance.LED_TOGETHER", 1)
    assert (drawn(pipeline, guided).images - whole).abs().max() <= 1.01 / 255
