"""Minority methods around a tiny text-to-image pipeline."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gen.denoising import make_generators, scheduler_named
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.guidance.minority import METHODS
from gen.models.minority_classifier import MinorityClassifier
from gen.types import Process
from pipelines.minority import MinoritySampling
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
    # every fifth step two rows an image, none with the null
    assert calls(MinoritySampling("self_guided", 1.0)) == plain + 2 * 2 * 2
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
