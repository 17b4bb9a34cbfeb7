"""Anomaly maps of a tiny model: in company, on the pixels of their pictures, and after saving."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.calibration import METHODS, AnomalyCalibration, OperatingPoints
from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.data.model_square import ModelSquare
from gen.encoders.encoder import Encoder
from gen.engine import run
from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder
from gen.store.card import write_card
from gen.training.inpainting import widen
from gen.types import Process
from pipelines.anomaly import AnomalyPipeline, SquareDeparture, on_source
from pipelines.text_to_cxr import TextToCXRPipeline

SIDE = 32


@pytest.fixture(scope="module")
def parts(tiny_parts: dict[str, Any]) -> dict[str, Any]:
    """One channel, 32 pixels a side, and a schedule of 100 timesteps, for speed."""
    torch.manual_seed(0)
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, context_channels=8, refine_channels=8, shuffle=2,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.fit(torch.rand(20, 1, SIDE, SIDE) * 2 - 1)
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=100, beta_start=0.001, beta_end=0.2, prediction_type="v_prediction"
    )
    network = copy.deepcopy(tiny_parts["unet"])
    network.conv_out.weight.mul_(0.1)  # what is quite random runs away in many steps
    return {**tiny_parts, "vae": vae.eval(), "unet": network, "scheduler": scheduler}


def with_encoder(pipeline: AnomalyPipeline) -> AnomalyPipeline:
    """The pipeline with blocks of pixels for features."""

    def blocks(images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, 4).movedim(1, -1) + 0.1

    pipeline.encoder = Encoder("blocks", SIDE, SIDE, lambda x: x, "cpu", 1, blocks)
    return pipeline


@pytest.fixture
def pipeline(parts: dict[str, Any]) -> AnomalyPipeline:
    return with_encoder(AnomalyPipeline(**parts))


def chest(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """A grey body (H, W) in black air, with structure."""
    y, x = np.mgrid[:height, :width]
    body = np.hypot(y / height - 0.5, x / width - 0.5) < 0.48
    noise = np.random.default_rng(seed).uniform(0.3, 0.7, (height, width))
    return np.where(body, noise, 0).astype(np.float32)


PICTURES = [chest(32, 32), chest(60, 40, 1)]


def card_of(folder: Path, calibration: AnomalyCalibration) -> None:
    write_card(
        folder, id="tiny", task="text-to-image", modality="DX", image_size=SIDE,
        pixel_range=(-1.0, 1.0), channels=1, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, limits=("random",),
        calibration={"anomaly": calibration.model_dump(mode="json")},
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_pictures_in_company_get_the_maps_they_get_alone(
    parts: dict[str, Any], method: str
) -> None:
    # in double precision, since thresholds make decisions of the last bits
    pipeline = with_encoder(AnomalyPipeline(**copy.deepcopy(parts))).to(torch.float64)
    options: dict[str, Any] = {"method": method, "threshold": 0.05}
    together = pipeline(PICTURES, seeds=[4, 5], **options)
    for picture, seed, found in zip(PICTURES, (4, 5), together, strict=True):
        (alone,) = pipeline([picture], seeds=[seed], **options)
        assert found.map.shape == found.healthy.shape == found.mask.shape == picture.shape
        assert np.abs(found.map - alone.map).max() <= 1e-4
        assert np.abs(found.healthy - alone.healthy).max() <= 1e-3
        assert found.score == pytest.approx(alone.score, abs=1e-4)


def test_a_seed_makes_the_map(pipeline: AnomalyPipeline) -> None:
    def found(seed: int) -> NDArray[np.float32]:
        (answer,) = pipeline(PICTURES[:1], "single_step", threshold=1, seeds=[seed])
        return answer.map

    assert np.array_equal(found(1), found(1))
    assert not np.array_equal(found(1), found(2))


def test_seeds_count_from_0_and_progress_ends_with_all(pipeline: AnomalyPipeline) -> None:
    told: list[tuple[int, int]] = []
    counted = pipeline(
        PICTURES[:2], "single_step", threshold=1, report=lambda *numbers: told.append(numbers)
    )
    given = pipeline(PICTURES[:2], "single_step", threshold=1, seeds=[0, 1])
    for one, other in zip(counted, given, strict=True):
        assert np.array_equal(one.map, other.map)
    assert told[0] == (0, 2)
    assert told[-1] == (2, 2)
    assert told == sorted(told)


def test_a_prompt_is_what_healthy_is(pipeline: AnomalyPipeline) -> None:
    maps = [
        pipeline(PICTURES[:1], "single_step", prompt=prompt, threshold=1)[0].map
        for prompt in ("no acute finding", "a child with pneumonia")
    ]
    assert not np.allclose(*maps, atol=1e-6)


def bright(prior: HealthyPrior, picture: Tensor) -> Process[Departure]:
    """A method that finds what is bright, and heals nothing."""
    yield from prior.encode(picture)
    return Departure((picture + 1) / 2, picture)


@pytest.mark.parametrize(("height", "width"), [(96, 48), (48, 96), (64, 64), (20, 14)])
def test_a_map_lies_on_the_pixels_of_its_picture(
    pipeline: AnomalyPipeline, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    monkeypatch.setattr(AnomalyPipeline, "methods", lambda self, *_: {"thor": bright})
    picture = np.full((height, width), 0.2, np.float32)
    rows, columns = slice(height // 8, height // 2), slice(width // 2, 7 * width // 8)
    picture[rows, columns] = 1
    (found,) = pipeline([picture], "thor", threshold=0.6)
    blur = 2 * max(1, max(height, width) // SIDE)  # two pixels of the square
    assert found.mask[
        rows.start + blur : rows.stop - blur, columns.start + blur : columns.stop - blur
    ].all()
    wide = np.zeros((height, width), bool)
    wide[
        max(0, rows.start - blur) : rows.stop + blur,
        max(0, columns.start - blur) : columns.stop + blur,
    ] = True
    assert not found.mask[~wide].any()
    (region,) = found.regions
    x, y, w, h = region.box
    centre = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    assert (x + w / 2, y + h / 2) == pytest.approx(centre, abs=blur)
    assert np.allclose(found.healthy, picture, atol=1e-5)
    assert found.threshold == 0.6


def test_a_change_is_laid_over_the_picture_so_that_its_detail_stays() -> None:
    picture = np.random.default_rng(0).uniform(0.3, 0.6, (128, 64)).astype(np.float32)
    square = ModelSquare(128, 64, SIDE)
    seen = square.to_model(picture)
    found = SquareDeparture(np.zeros_like(seen), (seen + 0.25) * 2 - 1, np.zeros_like(seen))
    mapped = on_source(picture, square, found, 0.5)
    assert mapped.healthy[4:-4, 4:-4] == pytest.approx(picture[4:-4, 4:-4] + 0.25, abs=1e-5)
    assert mapped.regions == ()
    assert mapped.score == 0


def test_nothing_of_the_picture_is_left_where_it_is_painted_anew() -> None:
    picture = np.random.default_rng(0).uniform(0.3, 0.6, (128, 64)).astype(np.float32)
    square = ModelSquare(128, 64, SIDE)
    healthy, painted = np.full((2, SIDE, SIDE), 0.5, np.float32)
    painted[:] = 0
    painted[: SIDE // 2] = 1
    found = SquareDeparture(np.zeros_like(healthy), healthy * 2 - 1, painted)
    mapped = on_source(picture, square, found, 0.5)
    assert mapped.healthy[:60] == pytest.approx(0.5, abs=1e-5)
    detail = (mapped.healthy - picture)[68:]
    assert np.corrcoef(mapped.healthy[68:].ravel(), picture[68:].ravel())[0, 1] > 0.8
    assert detail.std() < picture.std()


def test_a_picture_without_a_body_shows_nothing(pipeline: AnomalyPipeline) -> None:
    (found,) = pipeline([np.zeros((40, 30), np.float32)], threshold=0.0)
    assert not found.map.any()
    assert not found.mask.any()
    assert found.regions == ()
    assert found.score == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "anogan"}, "method is 'anogan', but must be one of: autopaint, patchwise"),
        ({"threshold": None}, "threshold_fpr is 0.05, but model None is not calibrated"),
        ({"threshold": -0.1}, "threshold is -0.1, but must be at least 0"),
        ({"threshold": float("nan")}, "threshold is nan, but must be at least 0"),
        ({"seeds": [1, 2]}, "seeds has 2 numbers for 1 pictures"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"pictures": [np.zeros((8, 8, 3))]}, r"pixels have the shape \(8, 8, 3\)"),
        ({"pictures": [np.zeros((2, 99))]}, "cut it into parts"),
    ],
)
def test_a_wrong_argument_is_named(
    pipeline: AnomalyPipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        pipeline(**{"pictures": PICTURES[:1], "threshold": 0.5, **arguments})


def test_a_saved_model_gives_the_same_map_and_still_draws(
    pipeline: AnomalyPipeline, tmp_path: Path
) -> None:
    (here,) = pipeline(PICTURES[:1], "single_step", threshold=1)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = with_encoder(AnomalyPipeline.from_pretrained(tmp_path / "saved"))
    (there,) = loaded(PICTURES[:1], "single_step", threshold=1)
    assert np.abs(here.map - there.map).max() <= 1e-5
    assert loaded.model_id == str(tmp_path / "saved")
    drawn = TextToCXRPipeline.from_pretrained(tmp_path / "saved")
    assert drawn("a chest", num_inference_steps=2).images[0].size == (SIDE, SIDE)
    with pytest.raises(InvalidInput, match="saved' is not calibrated on healthy pictures; run med"):
        loaded(PICTURES[:1])


def test_a_calibrated_model_has_its_thresholds(pipeline: AnomalyPipeline, tmp_path: Path) -> None:
    points = OperatingPoints(
        num_images=20, suspicious=1e9, pictures={"0.05": 0.5, "0.1": 0.25}, pixels={}
    )
    calibration = AnomalyCalibration(
        prompt="healthy", data="phantoms", methods={"single_step": points, "autopaint": points}
    )
    pipeline.save_pretrained(tmp_path / "model")
    card_of(tmp_path / "model", calibration)
    loaded = with_encoder(AnomalyPipeline.from_pretrained(tmp_path / "model"))
    assert loaded.calibration == calibration

    def threshold(**options: Any) -> float:
        return loaded(PICTURES[:1], "single_step", **options)[0].threshold

    assert threshold() == 0.5
    assert threshold(threshold_fpr=0.1) == 0.25
    assert threshold(threshold=0.4) == 0.4
    with pytest.raises(InvalidInput, match=r"threshold_fpr is 0\.01, but 20 healthy"):
        threshold(threshold_fpr=0.01)
    with pytest.raises(InvalidInput, match="method is 'thor', for which this model has no thresh"):
        loaded(PICTURES[:1], "thor")
    # nothing is as suspicious as that, so autopaint paints nothing
    (untouched,) = loaded(PICTURES[:1], "autopaint")
    assert untouched.healthy == pytest.approx(PICTURES[0], abs=1e-5)


def test_models_of_three_channels_have_maps_too(tiny_parts: dict[str, Any]) -> None:
    (found,) = AnomalyPipeline(**tiny_parts)([chest(20, 16)], "single_step", threshold=0)
    assert found.map.any()
    assert found.map.shape == (20, 16)


def test_networks_see_their_own_precision_without_autocast(parts: dict[str, Any]) -> None:
    square = PICTURES[0]
    for dtype, methods in ((torch.float32, METHODS[-1:]), (torch.bfloat16, METHODS)):
        pipeline = with_encoder(AnomalyPipeline(**copy.deepcopy(parts))).to(dtype)
        seen: dict[str, set[Any]] = {}

        def watched(name: str, network: Any, seen: dict[str, set[Any]] = seen) -> Any:
            def answer(*rows: Tensor) -> Any:
                assert not torch.is_autocast_enabled("cpu")
                seen.setdefault(name, set()).add(rows[0].dtype)
                return network(*rows)

            return answer

        networks = {name: watched(name, each) for name, each in pipeline.networks.items()}
        for method in methods:
            found = run(pipeline.process(square, method, "healthy", 0), networks)
            assert found.map.dtype == found.healthy.dtype == np.float32
            assert np.isfinite(found.map).all()
        assert seen["encoder"] == seen["decoder"] == seen["unet"] == {dtype}
        assert seen["features"] == {torch.float32}


def test_a_pipeline_moves_and_changes_as_one(parts: dict[str, Any]) -> None:
    pipeline = AnomalyPipeline(**copy.deepcopy(parts)).to(torch.float64)
    for network in (pipeline.text_to_image.unet, pipeline.text_to_image.vae):
        assert next(network.parameters()).dtype == torch.float64
    pipeline.unet = parts["unet"]
    assert pipeline.text_to_image.unet is parts["unet"]


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_is_shown_what_is_kept_paints_by_it(
    parts: dict[str, Any], method: str
) -> None:
    plain = with_encoder(AnomalyPipeline(**parts))
    wide = {**parts, "unet": copy.deepcopy(parts["unet"])}
    widen(wide["unet"])
    told = with_encoder(AnomalyPipeline(**wide))

    def found(pipeline: AnomalyPipeline) -> NDArray[np.float32]:
        (answer,) = pipeline(PICTURES[:1], method, threshold=0.05, seeds=[3])
        return answer.healthy

    # what a network does not heed yet changes nothing
    assert np.allclose(found(told), found(plain), atol=1e-4)
    channels = wide["unet"].config.out_channels
    with torch.no_grad():
        wide["unet"].conv_in.weight[:, channels:] += 0.3
    assert np.abs(found(told) - found(plain)).max() > 1e-3


def test_autopaint_leaves_the_air_beside_the_body_as_it_is(pipeline: AnomalyPipeline) -> None:
    """The whole body is suspicious to a threshold of 0, and its edge fades within a few pixels."""
    square = np.zeros((SIDE, SIDE), np.float32)
    square[10:, 12:] = 0.6
    square[2:5, 2:5] = 1  # a letter
    found = run(
        pipeline.process(square, "autopaint", "healthy", 0, suspicious=0.0), pipeline.networks
    )
    changed = np.abs(found.healthy - (square * 2 - 1)) > 1e-6
    assert changed[16:, 18:].mean() > 0.9
    assert not changed[:8].any()
    assert not changed[:, :10].any()
