"""Only what looks like a picture passes, as real pictures say."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gen.engine import run
from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.sanity import FIGURES, SanityGate, calibrate_sanity, deviations, figures_of


@lru_cache
def pictures(count: int, seed: int, side: int = 128) -> Tensor:
    """Pictures (count, 1, side, side) in [0, 1] whose power falls with frequency, and some grain.

    Brightness and contrast differ from one to the next.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, side, side))
    smooth = sum(
        sigma * gaussian_filter(noise, sigma * side / 128, axes=(-2, -1)) for sigma in (2, 6, 15)
    )
    smooth /= smooth.std((1, 2), keepdims=True)
    grain = rng.normal(size=smooth.shape) * rng.uniform(0.02, 0.05, (count, 1, 1))
    level, spread = rng.uniform(0.4, 0.6, (count, 1, 1)), rng.uniform(0.1, 0.18, (count, 1, 1))
    return torch.from_numpy(level + spread * (smooth + grain)).clamp(0, 1).float()[:, None]


def stored(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def gate() -> SanityGate:
    patients = [f"p{i}" for i in range(120)]
    training, others = stored(pictures(80, 0)), stored(pictures(120, 1))
    return SanityGate(calibrate_sanity(training, others, patients, 0.05))


def judge(gate: SanityGate, image: Tensor) -> Verdict:
    return run(gate.judge(image, Subject()), gate.networks)


def test_pictures_of_others_pass_at_about_the_rate_that_was_asked(gate: SanityGate) -> None:
    refused = [not judge(gate, image[None]).passed for image in pictures(60, 2)]
    assert sum(refused) <= 9  # 5 % of 60 is 3
    floor = gate.calibration.calibration.floor
    assert floor.low <= 0.05 <= floor.high


def test_what_is_no_number_or_out_of_range_is_refused_by_its_share(gate: SanityGate) -> None:
    image = pictures(1, 3)
    for value, word in (
        (torch.nan, "finite"),
        (torch.inf, "finite"),
        (1.5, "range"),
        (-1, "range"),
    ):
        spoilt = image.clone()
        spoilt[0, 0, :16, :16] = value
        verdict = judge(gate, spoilt)
        assert not verdict.passed
        assert verdict.score == pytest.approx(256 / 128**2)
        assert verdict.reason is not None
        assert word in verdict.reason


@given(level=st.floats(0, 1, width=32))
def test_one_grey_is_refused_whichever_it_is(gate: SanityGate, level: float) -> None:
    verdict = judge(gate, torch.full((1, 1, 100, 140), level))
    assert not verdict.passed
    assert verdict.fault == "one grey"
    assert verdict.score is not None
    assert np.isfinite(verdict.score)


def test_noise_blur_and_faint_pictures_are_refused_and_the_reason_names_the_figure(
    gate: SanityGate,
) -> None:
    image = pictures(1, 4)
    noise = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    blurred = torch.from_numpy(gaussian_filter(image.numpy(), 4, axes=(-2, -1)))
    faint = 0.5 + (image - image.mean()) / 20
    for spoilt, word in ((noise, "detail"), (blurred, "detail"), (faint, "contrast")):
        verdict = judge(gate, spoilt)
        assert not verdict.passed
        assert verdict.reason is not None
        assert word in verdict.reason
    assert "brightness" in str(judge(gate, (image + 0.35).clamp(0, 1) * 0.9).reason)


def test_a_picture_of_any_size_is_judged_as_its_file_would_be(gate: SanityGate) -> None:
    large = pictures(1, 5, side=256)
    wide = torch.cat([large, large.flip(-1)], -1)
    middle = judge(gate, wide[..., 128:384])
    assert judge(gate, wide).score == pytest.approx(middle.score, abs=0.01)


def test_a_range_ends_at_one_whatever_its_unit() -> None:
    usual = dict.fromkeys(FIGURES, (2.0, 3.0, 5.0))
    values = np.full((4, len(FIGURES)), 3.0)
    values[:, 1] = [3, 5, 2, 7]
    assert deviations(values, usual)[:, 1].tolist() == [0, 1, 1, 2]


def test_detail_does_not_depend_on_contrast() -> None:
    image = stored(pictures(1, 6))
    half = (image / 2 + 60).round().to(torch.uint8)
    whole, less = figures_of(image)[0], figures_of(half)[0]
    assert whole[1] - less[1] == pytest.approx(np.log(4), abs=0.01)
    assert np.allclose(whole[2:8], less[2:8], atol=0.05)


def test_usual_ranges_need_training_images() -> None:
    with pytest.raises(InvalidInput, match="no training image"):
        calibrate_sanity(stored(pictures(1, 0))[:0], stored(pictures(4, 0)), list("abcd"), 0.1)
