"""Known harms, and what counts as an answer to them."""

import numpy as np
import pytest
import torch

from gen.errors import InvalidInput
from gen.metrics.sensitivity import HARMS, blur, contrast, mode_dropping, noise, response
from gen.metrics.sensitivity import swap_labels as swap

IMAGES = torch.randint(60, 196, (6, 1, 48, 48), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize("name", sorted(HARMS))
def test_no_strength_is_no_harm(name: str) -> None:
    unharmed = HARMS[name](IMAGES, 0, 0)
    assert (unharmed.int() - IMAGES.int()).abs().max() <= (4 if name == "jpeg" else 0)


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    blurred = blur(IMAGES, 2).float()
    assert blurred.mean() == pytest.approx(float(IMAGES.float().mean()), abs=0.6)
    # white noise through a Gaussian of deviation s keeps 1 / (4 pi s^2) of its variance
    inner = float(blurred[..., 8:-8, 8:-8].var() / IMAGES.float().var())
    assert inner == pytest.approx(1 / (16 * np.pi), rel=0.25)


def test_noise_has_the_deviation_it_is_given_and_comes_from_its_seed() -> None:
    grey = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8)
    assert noise(grey, 5, 1).float().std() == pytest.approx(5, rel=0.05)
    assert torch.equal(noise(grey, 5, 1), noise(grey, 5, 1))
    assert not torch.equal(noise(grey, 5, 1), noise(grey, 5, 2))


def test_contrast_shrinks_deviations_about_each_images_own_mean() -> None:
    low = contrast(IMAGES, 0.5).float()
    ratio = low.std(dim=(1, 2, 3)) / IMAGES.float().std(dim=(1, 2, 3))
    assert torch.allclose(ratio, torch.tensor(0.5), atol=0.01)


def test_dropped_modes_are_the_last_and_the_count_stays() -> None:
    dropped = mode_dropping(IMAGES, 0.5)
    assert torch.equal(dropped, IMAGES[[0, 1, 2, 0, 1, 2]])


def test_swapped_labels_are_as_many_as_asked() -> None:
    labels = np.arange(40) % 3 == 0
    assert (swap(labels, 0.25) != labels).sum() == 10
    assert (swap(labels, 1) == ~labels).all()


def test_an_answer_is_monotonic_or_not() -> None:
    assert response([0, 1, 2, 3], [1, 2, 4, 9]).monotonic == pytest.approx(1)
    assert response([0, 1, 2, 3], [5, 2, 1, 0]).monotonic == pytest.approx(-1)
    assert response([0, 1, 2], [3, 3, 3]).monotonic == 0
    with pytest.raises(InvalidInput, match="at least three"):
        response([0, 1], [0, 1])
