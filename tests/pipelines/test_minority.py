"""Minority methods around a tiny text-to-image pipeline."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.denoising import fresh_scheduler, make_generators, scheduler_named
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.guidance.minority import METHODS, MinorityCalibration, ScoreSettings
from gen.guidance.self_guided import BETWEEN, EVERY
from gen.models.minority_classifier import MinorityClassifier
from gen.store.card import write_card
from gen.types import Process
from pipelines.minority import MinoritySampling
from pipelines.rarity import score_latents
from pipelines.text_to_cxr import TextToCXRPipeline

PLAIN = {"boost_and_skip": 1.0, "classifier": 0.0, "self_guided": 0.0, "prompt": 0.0}
STRONG = {"boost_and_skip": 1.5, "classifier": 5.0, "self_guided": 2.0, "prompt": 0.5}


@pytest.fixture(scope="module")
def pipeline(tiny_parts: dict[str, Any]) -> TextToCXRPipeline:
    torch.manual_seed(0)
    classifier = MinorityClassifier(4, 5, (8, 16), condition_dim=32).eval().requires_grad_(False)
    return TextToCXRPipeline(**tiny_parts, minority_classifier=classifier)


def process(pipeline: TextToCXRPipeline, minority: MinoritySampling | None) -> Process[Tensor]:
    return pipeline.process(
        ["a child with pneumonia", "no acute finding"],
        num_inference_steps=9,
        guidance_scale=2.0,
        generator=make_generators([1, 2]),
        minority=minority,
    )


def draw(pipeline: TextToCXRPipeline, minority: MinoritySampling | None) -> Tensor:
    return run(process(pipeline, minority), pipeline.networks)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_strength_of_nothing_is_plain_sampling(pipeline: TextToCXRPipeline, method: Any) -> None:
    found = draw(pipeline, MinoritySampling(method, PLAIN[method]))
    assert torch.allclose(found, draw(pipeline, None), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_methods_and_none_share_batches_unchanged(pipeline: TextToCXRPipeline, method: Any) -> None:
    settings = [None, MinoritySampling(method, STRONG[method]), None]
    alone = [draw(pipeline, each) for each in settings]
    assert not torch.allclose(alone[1], alone[0], atol=1e-3)
    engine = Engine(pipeline.networks, max_rows=16)
    tickets = [engine.submit(process(pipeline, each)) for each in settings]
    while engine.step():
        pass
    for ticket, wanted in zip(tickets, alone, strict=True):
        assert torch.allclose(ticket.result(), wanted, atol=1e-4)


def test_boost_and_skip_saves_calls_and_self_guidance_adds_few(
    pipeline: TextToCXRPipeline,
) -> None:
    def calls(minority: MinoritySampling | None) -> int:
        rows = 0

        def unet(*arguments: Tensor) -> Tensor:
            nonlocal rows
            rows += len(arguments[0])
            return pipeline.networks["unet"](*arguments)

        run(process(pipeline, minority), {**pipeline.networks, "unet": unet})
        return rows

    plain = calls(None)
    assert plain == 2 * 2 * 9
    # 12 % of nine steps is one step, of two images with and without their condition
    assert calls(MinoritySampling("boost_and_skip", 1.5)) == plain - 4
    # every second step of those between two rows an image, none with the null
    lowest, highest = BETWEEN
    timesteps = fresh_scheduler(pipeline.scheduler, 9).timesteps
    between = int(((timesteps >= lowest * 1000) & (timesteps <= highest * 1000)).sum())
    assert calls(MinoritySampling("self_guided", 1.0)) == plain + 2 * 2 * -(-between // EVERY)
    assert calls(MinoritySampling("classifier", 1.0)) == plain


@pytest.mark.parametrize("name", ["ddim", "euler", "unipc"])
def test_methods_work_with_any_scheduler(pipeline: TextToCXRPipeline, name: str) -> None:
    scheduler = scheduler_named(name, pipeline.scheduler.config)
    for method in METHODS:
        images = run(
            pipeline.process(
                "a chest",
                num_inference_steps=9,
                generator=make_generators([1]),
                scheduler=scheduler,
                minority=MinoritySampling(method, STRONG[method]),
            ),
            pipeline.networks,
        )
        assert images.isfinite().all()


def test_a_model_without_classifier_says_how_to_get_one(tiny_parts: dict[str, Any]) -> None:
    pipeline = TextToCXRPipeline(**tiny_parts)
    with pytest.raises(InvalidInput, match="medphantom train minority-classifier"):
        draw(pipeline, MinoritySampling("classifier", 1.0))


@pytest.fixture
def calibrated(tiny_parts: dict[str, Any], tmp_path: Path) -> Path:
    """A tiny model whose card says what reaches which level."""
    calibration = MinorityCalibration(
        score=ScoreSettings(distance="latent", noise_level=0.6, num_draws=1),
        scores={"all": (0.0, 10.0)},
        strengths={"boost_and_skip": ((0.4, 1.0), (0.9, 1.5))},
    )
    TextToCXRPipeline(**tiny_parts).save_pretrained(tmp_path / "calibrated")
    write_card(
        tmp_path / "calibrated", id="tiny", task="text-to-image", modality="DX", image_size=16,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, limits=("random",),
        calibration={"minority": calibration.model_dump(mode="json")},
    )  # fmt: skip
    return tmp_path / "calibrated"


def test_a_level_becomes_the_calibrated_strength_and_what_was_reached_is_told(
    calibrated: Path,
) -> None:
    pipeline = TextToCXRPipeline.from_pretrained(calibrated)
    arguments: dict[str, Any] = {"num_inference_steps": 9, "output_type": "pt"}

    def made(minority: Any, seed: int = 1) -> Any:
        return pipeline(
            "a chest", minority=minority, generator=make_generators([seed]), **arguments
        )

    rare = made(0.9)
    assert torch.equal(rare.images, made(MinoritySampling("boost_and_skip", 1.5)).images)
    assert not torch.allclose(rare.images, made(None).images, atol=1e-3)
    assert made(None).minority_reached is None
    # the score of the very latents, under noise of the image's own seed
    arguments["output_type"] = "latent"
    latents = made(0.9).images
    process = score_latents(pipeline, latents, ["a chest"], make_generators([1]), "latent", 0.6, 1)
    (score,) = run(process, pipeline.networks).tolist()
    assert rare.minority_reached == pytest.approx([score / 10])


def test_levels_that_cannot_be_had_are_refused_before_any_work(
    calibrated: Path, tiny_folder: Path
) -> None:
    pipeline = TextToCXRPipeline.from_pretrained(calibrated)
    for arguments, words in (
        ({"minority": 0.95}, r"which no method reaches .* boost_and_skip 0\.40 to 0\.90"),
        ({"minority": 0.95, "minority_method": "boost_and_skip"}, r"reaches 0\.40 to 0\.90"),
        ({"minority": 0.9, "minority_method": "classifier"}, "no calibration"),
        ({"minority": 0.45}, "pushes rare images away"),
        ({"minority": 2.0}, "quantile from 0 to 1"),
    ):
        with pytest.raises(InvalidInput, match=words):
            pipeline("a chest", **arguments)
    assert pipeline.minority_sampling(0.45, allow_common=True).strength == pytest.approx(1.05)
    bare = TextToCXRPipeline.from_pretrained(tiny_folder)
    with pytest.raises(InvalidInput, match="run medphantom train minority-calibration"):
        bare("a chest", minority=0.9)


@pytest.mark.parametrize("method", ["self_guided", "prompt"])
def test_what_is_climbed_may_be_measured_in_pixels(
    pipeline: TextToCXRPipeline, method: Any
) -> None:
    by_latents = draw(pipeline, MinoritySampling(method, STRONG[method]))
    by_pixels = draw(pipeline, MinoritySampling(method, STRONG[method], distance="pixel"))
    plain = draw(pipeline, None)
    assert by_pixels.isfinite().all()
    assert not torch.allclose(by_pixels, plain, atol=1e-4)
    assert not torch.allclose(by_pixels, by_latents, atol=1e-5)
