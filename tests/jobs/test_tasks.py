"""What may be asked for, the items it falls into, and what it costs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from gen.data.provenance import Record
from gen.denoising import SCHEDULERS
from gen.engine import run
from gen.errors import InvalidInput
from jobs.tasks import TASKS
from jobs.tasks.task import seed_of
from jobs.tasks.text_to_cxr import MAX_IMAGES, SchedulerName, TextToCXRSpec
from pipelines.text_to_cxr import TextToCXRPipeline

TASK = TASKS["text-to-cxr"]


def spec(**fields: Any) -> TextToCXRSpec:
    checked: TextToCXRSpec = TASK.check({"prompt": "a chest", **fields})
    return checked


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "at least 1 character"),
        ({"prompt": []}, "at least 1 item"),
        ({"prompt": ["a", ""]}, "at least 1 character"),
        ({"prompt": "x" * 1001}, "at most 1000 characters"),
        ({"prompt": ["a"] * (MAX_IMAGES + 1)}, "at most 1000"),
        ({"prompt": "a\x00b"}, "match pattern"),
        ({"negative_prompt": "a\x00b"}, "match pattern"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"n": MAX_IMAGES + 1}, "less than or equal to 1000"),
        ({"prompt": ["a", "b"], "n": 501}, "1002 images are asked for, but at most 1000"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**63}, "less than"),
        ({"seed": [1, 2]}, "seed has 2 numbers for 1 images; give one for each"),
        ({"prompt": ["a", "b"], "n": 2, "seed": [1, 2]}, "seed has 2 numbers for 4 images"),
        ({"seed": []}, "at least 1 item"),
        ({"height": 31}, "greater than or equal to 32"),
        ({"width": 1025}, "less than or equal to 1024"),
        ({"num_inference_steps": 0}, "greater than or equal to 1"),
        ({"num_inference_steps": 201}, "less than or equal to 200"),
        ({"guidance_scale": 0.99}, "greater than or equal to 1"),
        ({"guidance_scale": 20.1}, "less than or equal to 20"),
        ({"guidance_scale": float("nan")}, "finite"),
        ({"scheduler": "magic"}, "dpm"),
        ({"format": "gif"}, "png"),
        ({"minority": 1.1}, "less than or equal to 1"),
        ({"minority": 0.3}, "pushes rare images away"),
        ({"minority": 0.9, "minority_method": "luck"}, "boost_and_skip"),
        ({"model": ""}, "at least 1 character"),
        ({"wdith": 256}, "Extra inputs are not permitted"),
        ({"device": "cuda"}, "Extra inputs are not permitted"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_rule_is_named(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**fields)


def test_the_defaults_are_one_png_of_the_models_own_size() -> None:
    assert spec().model_dump(mode="json") == {
        "model": None,
        "previews": False,
        "prompt": "a chest",
        "negative_prompt": "",
        "n": 1,
        "height": None,
        "width": None,
        "num_inference_steps": 25,
        "guidance_scale": 1.5,
        "scheduler": "dpm++",
        "minority": None,
        "minority_method": None,
        "allow_common": False,
        "seed": None,
        "format": "png",
    }


def test_a_spec_survives_its_journey_as_json_and_cannot_be_changed() -> None:
    full = spec(prompt=["a", "b"], n=2, seed=[1, 2, 3, 2**63 - 1], scheduler="heun", format="dicom")
    assert TASK.check(full.model_dump(mode="json")) == full
    with pytest.raises(ValidationError, match="frozen"):
        full.n = 3  # type: ignore[misc]


def test_every_sampler_can_be_asked_for_and_no_other() -> None:
    assert set(SchedulerName) == set(SCHEDULERS)


def test_each_prompt_has_its_images_side_by_side() -> None:
    items = TASK.items(spec(prompt=["a", "b"], n=2, seed=[5, 6, 7, 8]), "r")
    assert items == [
        {"prompt": "a", "seed": 5},
        {"prompt": "a", "seed": 6},
        {"prompt": "b", "seed": 7},
        {"prompt": "b", "seed": 8},
    ]


def test_one_seed_counts_up_and_stays_in_range() -> None:
    seeds = [item["seed"] for item in TASK.items(spec(n=4, seed=2**63 - 2), "r")]
    assert seeds == [2**63 - 2, 2**63 - 1, 0, 1]


@given(request_id=st.text(max_size=64), other=st.text(max_size=64), n=st.integers(1, 20))
def test_drawn_seeds_are_settled_by_the_requests_id(request_id: str, other: str, n: int) -> None:
    items = TASK.items(spec(n=n), request_id)
    assert items == TASK.items(spec(n=n), request_id)
    seeds = [item["seed"] for item in items]
    assert len(set(seeds)) == n
    if other != request_id:
        assert seeds != [item["seed"] for item in TASK.items(spec(n=n), other)]


@given(request_id=st.text(max_size=64), index=st.integers(0, 10**6))
def test_a_drawn_seed_is_below_two_to_the_31(request_id: str, index: int) -> None:
    assert 0 <= seed_of(request_id, index) < 2**31


def test_drawn_seeds_use_the_whole_range() -> None:
    seeds = [seed_of("job", index) for index in range(4000)]
    assert len(set(seeds)) == 4000
    assert abs(np.mean(seeds) / 2**31 - 0.5) < 0.03  # six standard deviations
    assert seed_of("job/1", 1) != seed_of("job", 11)


def test_an_image_of_25_guided_steps_costs_what_the_help_says() -> None:
    assert TASK.work(spec(height=256, width=256)) == pytest.approx(3.2768)


@given(
    n=st.integers(1, 10),
    steps=st.integers(1, 20),
    side=st.sampled_from([32, 64, 256]),
    factor=st.integers(2, 4),
    scale=st.sampled_from([1.0, 1.5, 20.0]),
)
def test_work_is_linear_in_images_steps_and_pixels(
    n: int, steps: int, side: int, factor: int, scale: float
) -> None:
    def work(n: int, steps: int, height: int, width: int) -> float:
        return TASK.work(
            spec(n=n, num_inference_steps=steps, height=height, width=width, guidance_scale=scale)
        )

    one = work(n, steps, side, side)
    assert work(factor * n, steps, side, side) == pytest.approx(factor * one)
    assert work(n, factor * steps, side, side) == pytest.approx(factor * one)
    assert work(n, steps, factor * side, side) == pytest.approx(factor * one)
    assert work(n, steps, side, factor * side) == pytest.approx(factor * one)


def test_guidance_doubles_the_work_and_prompts_add_up() -> None:
    assert TASK.work(spec(guidance_scale=1.01)) == 2 * TASK.work(spec(guidance_scale=1))
    assert TASK.work(spec(prompt=["a", "b", "c"])) == pytest.approx(TASK.work(spec(n=3)))


def test_one_file_holds_one_image() -> None:
    TASK.check_one(spec(), "image/png")
    with pytest.raises(InvalidInput, match="2 images are asked for, but image/png holds one"):
        TASK.check_one(spec(prompt=["a", "b"]), "image/png")


@pytest.fixture
def pipeline(tiny_model: str) -> TextToCXRPipeline:
    """The tiny model, loaded as a sampler does."""
    loaded: TextToCXRPipeline = TASK.load(tiny_model, torch.device("cpu"), torch.float32)
    return loaded


Make = Callable[..., tuple[bytes, dict[str, Any]]]


@pytest.fixture
def make(pipeline: TextToCXRPipeline, tiny_model: str) -> Make:
    """A function from fields of a spec to (file, record) of its first item."""

    def make(**fields: Any) -> tuple[bytes, dict[str, Any]]:
        asked = spec(model=tiny_model, num_inference_steps=2, seed=7, **fields)
        (item,) = TASK.items(asked, "r")
        process = TASK.process(pipeline, asked, item, lambda *_: None)
        result = run(process, TASK.networks(pipeline))
        made = TASK.encode(pipeline, asked, item, result, {"forward_rows": 4})
        return made.data, made.record

    return make


@pytest.mark.parametrize("file_format", ["png", "dicom"])
def test_a_file_carries_the_record_of_all_that_was_asked(
    make: Make, pipeline: TextToCXRPipeline, tmp_path: Path, file_format: str
) -> None:
    data, row = make(format=file_format, negative_prompt="blur", scheduler="euler")
    (tmp_path / "file").write_bytes(data)
    record = Record.from_file(tmp_path / "file")
    assert record == Record.model_validate(row)
    assert (record.prompt, record.negative_prompt, record.seed) == ("a chest", "blur", 7)
    assert (record.scheduler, record.num_inference_steps) == ("euler", 2)
    assert (record.height, record.width, record.guidance_scale) == (16, 16, 1.5)
    assert record.weight_sha256 == pipeline.weight_sha256
    assert record.settings == {"device": "cpu", "forward_rows": 4}


def test_png_and_dicom_hold_the_same_grey_image(make: Make) -> None:
    png = np.asarray(Image.open(io.BytesIO(make()[0])), dtype=float) / 255
    dataset = pydicom.dcmread(io.BytesIO(make(format="dicom")[0]))
    assert dataset[0x0008, 0x001C].value == "YES"
    assert np.abs(dataset.pixel_array / 65535 - png).max() <= 1 / 255


def test_a_size_the_model_cannot_make_is_refused_before_the_first_step(
    pipeline: TextToCXRPipeline,
) -> None:
    asked = spec(width=33)
    with pytest.raises(InvalidInput, match="multiple of"):
        TASK.process(pipeline, asked, TASK.items(asked, "r")[0], lambda *_: None)


def test_a_preview_is_the_picture_of_the_latents(pipeline: TextToCXRPipeline) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = run(TASK.preview(pipeline, latents), TASK.networks(pipeline))
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    assert pixels.shape == (1, 3, 16, 16)
    assert torch.allclose(pixels, (decoded / 2 + 0.5).clamp(0, 1), atol=1e-6)
