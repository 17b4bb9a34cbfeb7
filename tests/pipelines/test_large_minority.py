"""Minority guidance of large images with random networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.denoising import fresh_scheduler
from gen.embedding_field import EmbeddingField
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.guidance.self_guided import BETWEEN, EVERY
from gen.models.minority_classifier import MinorityClassifier
from gen.types import Process
from pipelines.large_image import LargeImagePipeline
from pipelines.minority import MinoritySampling

DIM, STEPS = 8, 9
STRONG = (
    MinoritySampling("boost_and_skip", 1.5),
    MinoritySampling("self_guided", 1.0),
    MinoritySampling("classifier", 200.0),
)


@pytest.fixture(scope="module")
def pipeline(tiny_large_model: Path) -> LargeImagePipeline:
    """With a classifier that conditions on what the U-Net does."""
    pipeline = LargeImagePipeline.from_pretrained(tiny_large_model)
    config: Any = pipeline.unet.config
    torch.manual_seed(0)
    classifier = MinorityClassifier(
        in_channels=config.in_channels,
        condition_dim=config.cross_attention_dim,
        widths=(8, 8),
        num_classes=3,
    ).eval()
    pipeline.register_modules(minority_classifier=classifier)
    return pipeline


def drawing(
    pipeline: LargeImagePipeline, minority: MinoritySampling | None, into: list[Any]
) -> Process[None]:
    """Two by three windows' worth of image, as bands in a list."""
    field = EmbeddingField(
        torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0)), (32, 32)
    )
    return pipeline.process(
        field,
        lambda band: into.append(torch.from_numpy(band)),
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(1),
        minority=minority,
    )


def drawn(pipeline: LargeImagePipeline, minority: MinoritySampling | None) -> Tensor:
    bands: list[Tensor] = []
    run(drawing(pipeline, minority, bands), pipeline.networks)
    return torch.cat(bands).float()


def unet_rows(pipeline: LargeImagePipeline, minority: MinoritySampling | None) -> int:
    rows = 0

    def unet(*arguments: Tensor) -> Tensor:
        nonlocal rows
        rows += len(arguments[0])
        return pipeline.networks["unet"](*arguments)

    run(drawing(pipeline, minority, []), {**pipeline.networks, "unet": unet})
    return rows


@pytest.mark.parametrize("method", ["self_guided", "classifier"])
def test_gradients_of_no_strength_change_nothing(pipeline: LargeImagePipeline, method: Any) -> None:
    plain = drawn(pipeline, None)
    assert torch.equal(drawn(pipeline, MinoritySampling(method, 0.0)), plain)


@pytest.mark.parametrize("minority", STRONG, ids=lambda each: each.method)
def test_a_method_changes_the_image_the_same_way_each_time(
    pipeline: LargeImagePipeline, minority: MinoritySampling
) -> None:
    image = drawn(pipeline, minority)
    assert (image - drawn(pipeline, None)).abs().mean() > 0.5
    assert torch.equal(image, drawn(pipeline, minority))


def test_images_of_all_methods_and_none_share_batches_unchanged(
    pipeline: LargeImagePipeline,
) -> None:
    settings = [None, *STRONG]
    alone = [drawn(pipeline, each) for each in settings]
    engine = Engine(pipeline.networks, max_rows=16)
    bands: list[list[Tensor]] = [[] for _ in settings]
    for each, into in zip(settings, bands, strict=True):
        engine.submit(drawing(pipeline, each, into))
    while engine.step():
        pass
    for into, wanted in zip(bands, alone, strict=True):
        # levels of 8 bits, of which rounding may turn one into the next
        assert (torch.cat(into).float() - wanted).abs().max() <= 1


def test_skipped_steps_save_calls_and_gradients_cost_few(
    pipeline: LargeImagePipeline,
) -> None:
    plain = unet_rows(pipeline, None)
    one_step = plain / STEPS
    # 12 % of nine steps is one; the grid's shift changes the number of windows a little
    boosted = unet_rows(pipeline, STRONG[0])
    assert plain - 1.5 * one_step < boosted < plain - 0.5 * one_step
    # two more rows a window at every second step of those between, counted from the first of all
    lowest, highest = BETWEEN
    seconds = fresh_scheduler(pipeline.scheduler, STEPS).timesteps[::EVERY]
    acting = int(((seconds >= lowest * 1000) & (seconds <= highest * 1000)).sum())
    more = (unet_rows(pipeline, STRONG[1]) - plain) / one_step
    assert abs(more - 2 * acting) < 1
    assert unet_rows(pipeline, STRONG[2]) == plain


def test_what_cannot_be_is_explained(pipeline: LargeImagePipeline, tiny_large_model: Path) -> None:
    with pytest.raises(InvalidInput, match="learns a word"):
        drawn(pipeline, MinoritySampling("prompt", 0.1))
    bare = LargeImagePipeline.from_pretrained(tiny_large_model)
    with pytest.raises(InvalidInput, match="this model lacks"):
        drawn(bare, MinoritySampling("classifier", 1.0))
    field = EmbeddingField(torch.ones(1, 1, DIM), (32, 32))
    with pytest.raises(InvalidInput, match="medphantom train minority-calibration"):
        bare(field, minority=0.9)
    with pytest.raises(InvalidInput, match="quantile from 0 to 1"):
        bare(field, minority=1.9)
