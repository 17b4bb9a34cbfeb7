"""Restoration and healing of pictures whose every answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from gen.errors import InvalidInput
from gen.metrics.anomaly_healing import healing, restoration

NOISE = np.random.default_rng(0).normal(size=(3, 1, 32, 32))
ORIGINALS = torch.from_numpy(gaussian_filter(NOISE, (0, 0, 2, 2))).float().clamp(-1, 1)
MASKS = np.zeros((3, 32, 32), bool)
MASKS[:, 8:16, 8:16] = True
LESIONED = ORIGINALS + 0.4 * torch.from_numpy(MASKS)[:, None]


def test_a_copy_restores_all_and_a_blur_less() -> None:
    assert restoration(ORIGINALS, ORIGINALS) == pytest.approx(1)
    blurred = torch.from_numpy(gaussian_filter(ORIGINALS.numpy(), (0, 0, 3, 3)))
    assert (restoration(ORIGINALS, blurred) < 0.95).all()


def test_a_change_of_brightness_costs_the_luminance_term() -> None:
    grey = torch.zeros(1, 1, 16, 16)
    (similarity,) = restoration(grey, grey + 0.2)
    assert similarity == pytest.approx((2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4))


@given(share=st.floats(0, 1))
def test_what_is_gone_of_a_lesion_is_its_healing(share: float) -> None:
    restored = LESIONED + share * (ORIGINALS - LESIONED)
    assert healing(ORIGINALS, LESIONED, restored, MASKS) == pytest.approx(share, abs=1e-5)


def test_what_lies_outside_the_mask_changes_no_healing_and_harm_is_none() -> None:
    elsewhere = ORIGINALS - 0.7 * torch.from_numpy(~MASKS)[:, None]
    assert healing(ORIGINALS, LESIONED, elsewhere, MASKS).tolist() == [1, 1, 1]
    worse = LESIONED + 0.1
    assert healing(ORIGINALS, LESIONED, worse, MASKS).tolist() == [0, 0, 0]


def test_what_cannot_be_healed_or_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="3 of 3 lesions change nothing"):
        healing(ORIGINALS, ORIGINALS, ORIGINALS, MASKS)
    with pytest.raises(InvalidInput, match="S at least 11"):
        restoration(ORIGINALS[..., :8, :8], ORIGINALS[..., :8, :8])
