"""The pipeline against diffusers' own, in company, and in what it refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from gen.denoising import SCHEDULERS, make_generators, scheduler_named
from gen.engine import Engine
from gen.errors import InvalidInput
from pipelines.text_to_cxr import TextToCXRPipeline

PROMPT = "a chest x-ray of a child with pneumonia"
LOSSLESS = 1 / 255


@pytest.fixture
def pipeline(tiny_parts: dict[str, Any]) -> TextToCXRPipeline:
    """The tiny model in our pipeline."""
    return TextToCXRPipeline(**tiny_parts)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_gives_the_images_of_the_stable_diffusion_pipeline(
    tiny_parts: dict[str, Any], name: str
) -> None:
    # an offset of 1 is what StableDiffusionPipeline insists on
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = scheduler_named(name, {**betas, "steps_offset": 1})
    arguments = {
        "negative_prompt": ["", "no acute finding"],
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "output_type": "np",
    }
    theirs = StableDiffusionPipeline(
        **{**tiny_parts, "scheduler": scheduler},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    ours = TextToCXRPipeline(**{**tiny_parts, "scheduler": scheduler})
    prompts = [PROMPT, "a chest"]
    expected = theirs(prompts, generator=make_generators([3, 4]), **arguments).images
    images = ours(prompts, generator=make_generators([3, 4]), **arguments).images
    assert np.abs(images - expected).max() <= LOSSLESS


def test_an_image_does_not_depend_on_who_shares_the_engine(pipeline: TextToCXRPipeline) -> None:
    alone = pipeline(
        PROMPT, generator=make_generators([7]), num_inference_steps=4, output_type="pt"
    )
    engine = Engine(pipeline.networks, max_rows=8)
    others = [
        engine.submit(pipeline.process("x", num_inference_steps=n, generator=make_generators([n])))
        for n in (2, 5)
    ]
    ticket = engine.submit(
        pipeline.process(PROMPT, num_inference_steps=4, generator=make_generators([7]))
    )
    engine.drain()
    assert (ticket.result() - alone.images).abs().max() <= 1e-4
    assert all(other.done() for other in others)


def test_a_process_keeps_the_scheduler_it_was_made_with(pipeline: TextToCXRPipeline) -> None:
    arguments = {"num_inference_steps": 3, "generator": make_generators([1])}
    expected = pipeline(PROMPT, output_type="pt", **arguments).images
    engine = Engine(pipeline.networks)
    ticket = engine.submit(
        pipeline.process(PROMPT, num_inference_steps=3, generator=make_generators([1]))
    )
    pipeline.scheduler = scheduler_named("euler", pipeline.scheduler.config)
    engine.drain()
    assert (ticket.result() - expected).abs().max() <= 1e-4


def test_seeds_make_the_image_and_prompts_change_it(pipeline: TextToCXRPipeline) -> None:
    def image(prompt: str, seed: int) -> Any:
        return pipeline(
            prompt, generator=make_generators([seed]), num_inference_steps=3, output_type="np"
        ).images

    assert np.array_equal(image(PROMPT, 1), image(PROMPT, 1))
    assert not np.array_equal(image(PROMPT, 1), image(PROMPT, 2))
    assert not np.array_equal(image(PROMPT, 1), image("no acute finding", 1))


def test_several_images_a_prompt_come_in_the_prompts_order(pipeline: TextToCXRPipeline) -> None:
    four = pipeline(
        [PROMPT, "a chest"],
        num_images_per_prompt=2,
        generator=make_generators([1, 2, 3, 4]),
        num_inference_steps=2,
        output_type="np",
    ).images
    third = pipeline(
        "a chest", generator=make_generators([3]), num_inference_steps=2, output_type="np"
    ).images
    assert four.shape == (4, 16, 16, 3)
    assert np.abs(four[2] - third[0]).max() <= LOSSLESS


def test_given_latents_take_the_place_of_drawn_ones(pipeline: TextToCXRPipeline) -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    drawn = pipeline(PROMPT, generator=make_generators([9]), num_inference_steps=2).images[0]
    given = pipeline(PROMPT, latents=noise, num_inference_steps=2).images[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(given))


def test_a_callback_sees_each_step_and_may_change_the_latents(pipeline: TextToCXRPipeline) -> None:
    seen = []

    def zero(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, int(timestep)))
        return {"latents": torch.zeros_like(values["latents"])}

    result = pipeline(
        PROMPT, num_inference_steps=3, output_type="latent", callback_on_step_end=zero
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert not result.images.any()


def test_one_channel_models_give_grey_pictures(tiny_parts: dict[str, Any]) -> None:
    from gen.models.block_autoencoder import BlockAutoencoder

    torch.manual_seed(0)
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, context_channels=8, refine_channels=8, shuffle=2,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    pipeline = TextToCXRPipeline(**{**tiny_parts, "vae": vae})
    picture = pipeline(PROMPT, num_inference_steps=2).images[0]
    assert picture.mode == "L"
    assert picture.size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "prompt must be a sentence"),
        ({"prompt": PROMPT, "height": 15}, "height is 15, but must be a multiple of 4; try 16"),
        ({"prompt": PROMPT, "num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"prompt": PROMPT, "num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"prompt": PROMPT, "guidance_scale": float("nan")}, "scale is nan"),
        ({"prompt": PROMPT, "guidance_interval": (0.5, 0.2)}, "interval is"),
        ({"prompt": PROMPT, "output_type": "gif"}, "output_type is 'gif'"),
        ({"prompt": [PROMPT], "negative_prompt": ["a", "b"]}, "negative_prompt has 2"),
        ({"prompt": PROMPT, "generator": make_generators([1, 2])}, "generator has 2"),
    ],
)
def test_a_wrong_argument_is_named(
    pipeline: TextToCXRPipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        pipeline(**arguments)


def test_a_saved_model_gives_the_same_image_in_a_fresh_process(
    pipeline: TextToCXRPipeline, tiny_folder: Path, tmp_path: Path
) -> None:
    script = """
import sys, numpy as np
from gen.denoising import make_generators
from pipelines.text_to_cxr import TextToCXRPipeline
pipeline = TextToCXRPipeline.from_pretrained(sys.argv[1])
seed = make_generators([5])
result = pipeline(sys.argv[2], generator=seed, num_inference_steps=2, output_type="np")
np.save(sys.argv[3], result.images)
"""
    out = tmp_path / "image.npy"
    subprocess.run([sys.executable, "-c", script, tiny_folder, PROMPT, out], check=True)
    here = pipeline(
        PROMPT, generator=make_generators([5]), num_inference_steps=2, output_type="np"
    ).images
    assert np.abs(np.load(out) - here).max() <= LOSSLESS
