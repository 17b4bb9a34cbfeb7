"""The seam score in closed form."""

import numpy as np
import pytest

from gen.errors import InvalidInput
from gen.metrics.seams import seam_score


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
