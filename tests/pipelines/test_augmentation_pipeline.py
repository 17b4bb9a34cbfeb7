"""Augmentation by a tiny model: its ends, what stays exact, in company, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.typing import NDArray

from gen.augmentation.areas import area_of_box
from gen.augmentation.classical import Step, transformed
from gen.data.model_square import ModelSquare
from gen.denoising import make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder
from gen.training.inpainting import widen
from pipelines.augmentation import AugmentationPipeline
from pipelines.outputs import Augmented
from pipelines.pictures import decode_pictures, encode_pictures
from pipelines.redrawing import Source
from pipelines.text_to_cxr import TextToCXRPipeline

SIDE = 32
PROMPT = "a child with pneumonia"
QUICK: dict[str, Any] = {"num_inference_steps": 4}


@pytest.fixture(scope="module")
def parts(tiny_parts: dict[str, Any]) -> dict[str, Any]:
    """One channel, 32 pixels a side, 4 a cell, and a schedule of 100 timesteps."""
    torch.manual_seed(0)
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, context_channels=8, refine_channels=8, shuffle=2,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.fit(torch.rand(20, 1, SIDE, SIDE) * 2 - 1)
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=100, beta_start=0.001, beta_end=0.2, prediction_type="v_prediction",
        timestep_spacing="trailing",
    )  # fmt: skip
    return {**tiny_parts, "vae": vae.eval(), "scheduler": scheduler}


@pytest.fixture
def pipeline(parts: dict[str, Any]) -> AugmentationPipeline:
    return AugmentationPipeline(**parts)


def chest(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Two dark lungs in a grey body, with grain."""
    y, x = np.mgrid[:height, :width]
    down, across = y / height, x / width
    picture = np.where(np.hypot(down - 0.5, across - 0.5) < 0.49, 0.7, 0.0)
    for centre in (0.32, 0.68):
        picture[np.hypot((down - 0.45) / 2, across - centre) < 0.13] = 0.35
    grain = np.random.default_rng(seed).uniform(0, 0.05, picture.shape)
    return (picture + grain).astype(np.float32)


PICTURES = [chest(32, 32), chest(60, 40, 1), chest(30, 50, 2)]


def test_strength_1_is_text_to_image_from_the_same_seed(pipeline: AugmentationPipeline) -> None:
    (varied,) = pipeline("vary", PICTURES[:1], PROMPT, strength=1, seeds=[3], **QUICK)
    drawn = pipeline.text_to_image(
        PROMPT, generator=make_generators([3]), guidance_scale=1.5, output_type="np", **QUICK
    )
    assert np.allclose(varied.image, drawn.images[0, ..., 0], atol=1e-5)
    (written,) = pipeline("synthesise", prompts=PROMPT, seeds=[3], **QUICK)
    assert np.allclose(written.image, drawn.images[0, ..., 0], atol=1e-5)
    assert written.mask is varied.mask is written.change is None


def test_the_less_strength_the_nearer_to_what_the_model_sees(
    pipeline: AugmentationPipeline,
) -> None:
    def encoded_and_back() -> Any:
        source = Source(PICTURES[0], ModelSquare(SIDE, SIDE, SIDE))
        drawn = pipeline.text_to_image
        latents = yield from encode_pictures(drawn, source.seen(torch.device("cpu")))
        return (yield from decode_pictures(drawn, latents))

    seen = run(encoded_and_back(), pipeline.networks)[0, 0].numpy() / 2 + 0.5
    gaps = []
    for strength in (0.01, 0.3, 0.9):
        (varied,) = pipeline(
            "vary", PICTURES[:1], PROMPT, strength=strength, num_inference_steps=100
        )
        gaps.append(float(np.abs(varied.image - seen).mean()))
    assert gaps[0] < 0.02
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("operation", ["insert", "remove"])
@pytest.mark.parametrize("picture", PICTURES)
def test_outside_the_mask_a_picture_of_any_shape_is_the_same_bit_for_bit(
    pipeline: AugmentationPipeline, operation: str, picture: NDArray[np.float32]
) -> None:
    height, width = picture.shape
    mask = np.zeros(picture.shape, np.uint8)
    mask[height // 4 : height // 2, width // 2 : 3 * width // 4] = 255
    prompt = PROMPT if operation == "insert" else None
    (made,) = pipeline(operation, [picture], prompt, [mask], **QUICK)
    inside = mask > 0
    assert np.array_equal(made.image[~inside], picture[~inside])
    middle = inside.copy()
    middle[: height // 4 + 2] = middle[:, : width // 2 + 2] = False
    assert np.abs(made.image - picture)[middle].max() > 0.01
    assert made.change is not None
    assert made.change == pytest.approx(np.abs(made.image - picture)[inside].mean(), rel=1e-5)
    assert made.mask is not None
    assert np.array_equal(made.mask, inside if operation == "insert" else np.zeros_like(inside))
    assert ("Findings: no acute finding" in made.prompt) == (operation == "remove")


def test_a_box_is_painted_as_its_ellipse_and_without_one_a_place_is_drawn(
    pipeline: AugmentationPipeline,
) -> None:
    box = (10.0, 14.0, 20.0, 30.0)
    made, drawn, other = (
        pipeline("insert", PICTURES[1:2], PROMPT, areas, seeds=[seed], **QUICK)[0]
        for areas, seed in (([box], 0), (None, 0), (None, 1))
    )
    assert made.mask is not None
    assert drawn.mask is not None
    assert other.mask is not None
    assert np.array_equal(made.mask, area_of_box(box, (60, 40)))
    assert drawn.mask.any()
    assert not np.array_equal(drawn.mask, other.mask)


def same(one: Augmented, other: Augmented) -> bool:
    masks = (one.mask is None and other.mask is None) or np.array_equal(one.mask, other.mask)  # type: ignore[arg-type]
    return masks and bool(np.abs(one.image - other.image).max() <= 1e-4)


@pytest.mark.parametrize("operation", ["vary", "insert", "synthesise"])
def test_pictures_in_company_become_what_they_become_alone(
    pipeline: AugmentationPipeline, operation: str
) -> None:
    pictures = None if operation == "synthesise" else PICTURES
    told: list[tuple[int, int]] = []
    prompts = [PROMPT, "no acute finding", "a chest x-ray"]
    together = pipeline(
        operation, pictures, prompts, seeds=[4, 5, 6],
        report=lambda *numbers: told.append(numbers), **QUICK,
    )  # fmt: skip
    assert told[-1] == (3, 3)
    for row, made in enumerate(together):
        alone = pipeline(
            operation,
            None if pictures is None else pictures[row : row + 1],
            prompts[row],
            seeds=[4 + row],
            **QUICK,
        )
        assert same(made, alone[0])
    counted = pipeline(operation, pictures, prompts, **QUICK)
    assert not same(counted[0], together[0])


def test_classical_steps_follow_or_are_all(pipeline: AugmentationPipeline) -> None:
    steps = [Step("affine", 2), Step("gamma")]
    (alone,) = pipeline("classical", PICTURES[1:2], classical=steps, seeds=[3])
    expected, _ = transformed(PICTURES[1], None, steps, 3)
    assert np.array_equal(alone.image, expected)
    assert (alone.mask, alone.prompt, alone.change) == (None, "", None)
    mask = PICTURES[1] > 0.6
    (moved,) = pipeline("classical", PICTURES[1:2], areas=[mask], classical=steps, seeds=[3])
    assert moved.mask is not None
    assert np.array_equal(moved.mask, transformed(PICTURES[1], mask, steps, 3)[1])  # type: ignore[arg-type]
    plain, after = (
        pipeline("insert", PICTURES[1:2], PROMPT, classical=each, seeds=[3], **QUICK)[0]
        for each in ((), steps)
    )
    image, label = transformed(plain.image, plain.mask, steps, 3)
    assert same(after, Augmented(image, label, "insert", PROMPT))


def test_the_words_and_what_guidance_moves_away_from_matter(
    pipeline: AugmentationPipeline,
) -> None:
    def made(prompt: str, **options: Any) -> NDArray[np.float32]:
        return pipeline("insert", PICTURES[:1], prompt, seeds=[1], **QUICK, **options)[0].image

    assert not np.allclose(made(PROMPT), made("an adult with a mass"), atol=1e-5)
    healthy = "Frontal chest X-ray of a young child. Findings: no acute finding."
    assert np.array_equal(made(PROMPT), made(PROMPT, negative_prompt=healthy))
    assert not np.allclose(made(PROMPT), made(PROMPT, negative_prompt=""), atol=1e-5)
    assert not np.allclose(made(PROMPT), made(PROMPT, guidance_scale=1.0), atol=1e-5)


def test_steps_are_told_to_their_number(pipeline: AugmentationPipeline) -> None:
    for operation, picture, strength, most in (
        ("vary", PICTURES[0], 0.5, 4),
        ("insert", PICTURES[0], None, 8),
        ("synthesise", None, None, 8),
    ):
        told: list[tuple[int, int]] = []
        shapes = set()

        def on_step(
            done: int, total: int, latents: Any, told: Any = told, shapes: Any = shapes
        ) -> None:
            told.append((done, total))
            shapes.add(tuple(latents.shape))

        process = pipeline.process(
            operation, picture, PROMPT, strength=strength, num_inference_steps=8, on_step=on_step
        )
        run(process, pipeline.networks)
        assert told == [(done, most) for done in range(1, most + 1)]
        assert shapes == {(1, 4, 8, 8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operation": "flip"}, "operation is 'flip'"),
        ({"prompts": None}, "needs words"),
        ({"pictures": None, "seeds": [1]}, "starts from a picture"),
        ({"strength": 0.0}, "strength is 0.0"),
        ({"strength": 0.05}, "strength is 0.05, but the last of 4 steps"),
        ({"seeds": [1, 2]}, "1 pictures, 2 seeds, but each picture needs one of each"),
        ({"pictures": [], "prompts": []}, "there are no pictures"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"areas": [(0, 0, 4, 4)]}, "takes no mask or box"),
        ({"operation": "insert", "areas": [np.zeros((32, 32))]}, "mask is empty"),
        ({"operation": "insert", "areas": [np.ones((32, 32))]}, "mask covers all"),
        ({"operation": "insert", "areas": [np.ones((16, 32))]}, r"mask has the shape \(16, 32\)"),
        ({"operation": "insert", "areas": [(0, 0, 99, 4)]}, "box is"),
        ({"operation": "insert", "pictures": [np.zeros((32, 32))]}, "no place in the lungs"),
        ({"operation": "remove"}, "needs to know where"),
        ({"operation": "classical", "prompts": None}, "does nothing without classical steps"),
        ({"pictures": [np.zeros((8, 8, 3))]}, r"pixels have the shape \(8, 8, 3\)"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_a_wrong_argument_is_named(
    pipeline: AugmentationPipeline, arguments: dict[str, Any], message: str
) -> None:
    right = {"operation": "vary", "pictures": PICTURES[:1], "prompts": PROMPT}
    with pytest.raises(InvalidInput, match=message):
        pipeline(**{**right, **QUICK, **arguments})


def test_a_saved_model_makes_the_same(pipeline: AugmentationPipeline, tmp_path: Path) -> None:
    (here,) = pipeline("vary", PICTURES[1:2], PROMPT, **QUICK)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = AugmentationPipeline.from_pretrained(tmp_path / "saved")
    assert same(loaded("vary", PICTURES[1:2], PROMPT, **QUICK)[0], here)
    drawn = TextToCXRPipeline.from_pretrained(tmp_path / "saved")
    assert AugmentationPipeline.over(drawn).unet is drawn.unet
    assert len(loaded.weight_sha256) == 64


def test_models_of_three_channels_make_grey_pictures(tiny_parts: dict[str, Any]) -> None:
    pipeline = AugmentationPipeline(**tiny_parts)
    (varied,) = pipeline("vary", [chest(20, 16)], PROMPT, **QUICK)
    assert varied.image.shape == (20, 16)
    (painted,) = pipeline("insert", [chest(20, 16)], PROMPT, [(2, 2, 8, 8)], **QUICK)
    assert painted.change is not None
    assert painted.change > 0


def test_a_network_that_is_shown_what_is_kept_paints_by_it(parts: dict[str, Any]) -> None:
    plain = AugmentationPipeline(**parts)
    wide = {**parts, "unet": copy.deepcopy(parts["unet"])}
    widen(wide["unet"])
    told = AugmentationPipeline(**wide)

    def made(pipeline: AugmentationPipeline, operation: str) -> NDArray[np.float32]:
        return pipeline(operation, PICTURES[:1], PROMPT, seeds=[3], **QUICK)[0].image

    # what a network does not heed yet changes nothing
    for operation in ("insert", "vary"):
        assert np.allclose(made(told, operation), made(plain, operation), atol=1e-4)
    channels = wide["unet"].config.out_channels
    with torch.no_grad():
        wide["unet"].conv_in.weight[:, channels:] += 0.3
    for operation in ("insert", "vary"):
        assert np.abs(made(told, operation) - made(plain, operation)).max() > 1e-3
    with pytest.raises(InvalidInput, match="as one trained for inpainting does"):
        told("synthesise", prompts=PROMPT, seeds=[1])
