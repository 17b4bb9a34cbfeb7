"""The seam score in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.seams import line_energies, score_of, seam_score, seam_scores, sharpness
from gen.metrics.views import View


def view(pixels: NDArray[np.uint8]) -> View:
    """A picture (H, W, 3) in memory."""
    height, width = pixels.shape[:2]
    return View("a", height, width, lambda y, x, h, w: pixels[y : y + h, x : x + w])


def test_noise_has_no_seams() -> None:
    noise = np.random.default_rng(0).normal(size=(512, 512, 3))
    score = seam_score(noise, 16)
    assert score.at_origin == pytest.approx(1, abs=0.02)
    assert score.worst == pytest.approx(1, abs=0.03)


def test_tiles_of_different_brightness_have_their_edges_energy_at_their_borders() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1024, 1024))
    tiles = np.kron(rng.normal(size=(64, 64)), np.ones((16, 16)))
    # differences of noise have variance 2 everywhere, those of tiles 2 at the borders only
    assert seam_score(noise + tiles, 16).at_origin == pytest.approx(2, rel=0.05)


def test_the_worst_phase_is_where_the_seams_are() -> None:
    rng = np.random.default_rng(1)
    tiles = np.kron(rng.normal(size=(9, 9)), np.ones((32, 32)))[5:261, 5:261]
    score = seam_score(rng.normal(size=(256, 256)) + 2 * tiles, 32)
    assert score.phase == 27
    assert score.worst > 3
    assert score.at_origin < 1.1


def test_brightness_and_contrast_do_not_matter() -> None:
    image = np.random.default_rng(2).normal(size=(64, 96))
    assert seam_score(5 * image + 3, 8).worst == pytest.approx(seam_score(image, 8).worst)


def test_a_constant_image_has_none() -> None:
    assert seam_score(np.zeros((32, 32)), 8).worst == 1


@pytest.mark.parametrize(("shape", "period"), [((31, 64), 16), ((64, 64), 1)])
def test_too_small_an_image_is_refused(shape: tuple[int, int], period: int) -> None:
    with pytest.raises(InvalidInput, match="two periods"):
        seam_score(np.zeros(shape), period)


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(16, 60), width=st.integers(16, 60), period=st.integers(2, 8),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_blocks_of_a_picture_add_up_to_the_whole(
    height: int, width: int, period: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = line_energies(view(pixels), period)
    summed, whole = score_of(blocks.sum(0)), seam_score(pixels, period)
    assert summed.phase == whole.phase
    assert summed.worst == pytest.approx(whole.worst)
    assert summed.at_origin == pytest.approx(whole.at_origin)
    # every pair of neighbours is counted once
    assert blocks[:, 1].sum() == 3 * ((height - 1) * width + height * (width - 1))


def test_tiles_of_different_brightness_stand_out_against_real_images() -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(100, 150, (256, 256, 3), dtype=np.uint8)
    steps = np.kron(rng.integers(0, 60, (16, 16, 1)), np.ones((16, 16, 1))).astype(np.uint8)
    real = line_energies(view(rng.integers(100, 150, (256, 256, 3), dtype=np.uint8)), 16)
    seamed, seamless = (
        seam_scores(line_energies(view(pixels), 16), real) for pixels in (plain + steps, plain)
    )
    assert seamed.worst.distance.low > 2 > seamed.worst.floor.high
    assert seamed.at_origin.distance.low > 2
    # by chance the worst phase is as much above 1 in both
    assert seamless.worst.distance.value == pytest.approx(seamless.worst.floor.value, abs=0.03)
    assert seamless.worst.distance.value > 1
    assert seamless.at_origin.distance.value == pytest.approx(1, abs=0.05)


def test_edges_of_jpeg_blocks_are_no_seams() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.normal(size=(64, 64)), np.ones((8, 8)))
    noise = rng.normal(size=(512, 512))
    assert seam_score(noise + 2 * blocks, 128).worst < 1.3
    # windows of 128 pixels on top of them are: 2 + 8 across a block's edge, and 16 more there
    windows = 4 * np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((128, 128)))
    assert seam_score(noise + 2 * blocks + windows, 128).at_origin == pytest.approx(2.6, abs=0.3)


def test_a_blurred_image_is_less_sharp_and_another_of_the_kind_is_as_sharp() -> None:
    rng = np.random.default_rng(0)
    real, same = (rng.normal(100, 20, (256, 256, 3)) for _ in range(2))
    # the mean of two neighbours halves the variance, and that of differences along its axis
    blurred = (same + np.roll(same, 1, 0)) / 2
    energies = [
        line_energies(view(np.clip(each, 0, 255).astype(np.uint8)), 16)
        for each in (real, same, blurred)
    ]
    plain, soft = (sharpness(each, energies[0]) for each in energies[1:])
    assert plain.distance.value == pytest.approx(1, abs=0.02)
    assert soft.floor.value == pytest.approx(1, abs=0.02)
    # across rows (x_t - x_t-2) / 2: a quarter; across columns: a half
    assert soft.distance.value == pytest.approx((0.25 + 0.5) / 2, abs=0.02)
