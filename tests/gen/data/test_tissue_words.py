"""Stain densities in closed form, and words for shares."""

import numpy as np
import pytest

from gen.data.tissue_words import STAINS, shares, stain_densities, words_for


@pytest.mark.parametrize("stain", range(3))
def test_a_pure_stain_has_its_own_density_only(stain: int) -> None:
    direction = STAINS[stain] / np.linalg.norm(STAINS[stain])
    pixels = np.round(256 * 10 ** (-0.8 * direction) - 1).astype(np.uint8)
    densities = stain_densities(pixels[None, None])[0, 0]
    assert densities[stain] == pytest.approx(0.8, abs=0.03)
    assert np.delete(densities, stain) == pytest.approx([0, 0], abs=0.03)


def test_shares_are_those_of_what_was_painted() -> None:
    direction = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    colours = np.round(256 * 10 ** (-0.7 * direction) - 1).astype(np.uint8)
    pixels = np.full((10, 10, 3), 245, np.uint8)
    pixels[:6] = colours[1]
    pixels[:3, :5] = colours[0]
    nuclei, glass = shares(pixels)
    assert nuclei == pytest.approx(15 / 60)
    assert glass == pytest.approx(0.4)


def test_words_follow_the_shares() -> None:
    assert words_for(0.0, 0.0) == ["few nuclei"]
    assert words_for(0.3, 0.5) == ["many nuclei", "beside empty glass"]
    assert words_for(0.9, 0.1) == ["crowded nuclei"]
    assert words_for(0.5, 0.95) == ["empty glass"]
