"""Real pixels that a large image grows around: where they lie, and what is kept of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gen.data.canvas import new_canvas
from gen.denoising import SCHEDULERS, fresh_scheduler, scheduler_named
from gen.engine import run
from gen.errors import InvalidInput
from gen.known_region import KnownRegion, keep_known
from gen.large_canvas import denoise_canvas, draw_canvas_noise
from gen.tiling import bell, shifted
from gen.types import ModelCall, Process

SIDE = 8
CONFIG = {"beta_schedule": "scaled_linear", "beta_end": 0.0205, "timestep_spacing": "trailing"}


def predict(latents: Tensor, timestep: Tensor, *_: Any) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents,)))


def region(height: int, width: int, top: int = 0, left: int = 0, mask: Any = None) -> KnownRegion:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return KnownRegion(pixels, top, left, mask)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_known_cells_end_as_they_were_and_are_noisy_on_the_way(name: str, tmp_path: Path) -> None:
    known = torch.full((1, 6, 5), 4.0)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2, 3] = False
    scheduler = fresh_scheduler(scheduler_named(name, CONFIG), 10)
    generator = torch.Generator().manual_seed(0)
    layouts = shifted(24, 24, SIDE, 2, len(scheduler.timesteps), generator)
    place = slice(9, 15), slice(2, 7)
    keep = keep_known(known, place, mask, scheduler, generator)
    seen: list[float] = []

    def watch(index: int, top: int, band: Tensor) -> Tensor:
        kept = keep(index, top, band)
        if top == 8:
            seen.append(float(kept[:, 1:3, 2:7].std()))
        assert torch.equal(kept[:, :, 8:], band[:, :, 8:])
        return kept

    with new_canvas(tmp_path, 1, 24, 24) as canvas:
        draw_canvas_noise(canvas, SIDE, float(scheduler.init_noise_sigma), generator)
        process = denoise_canvas(
            canvas, scheduler, predict, layouts, bell(SIDE), generator, tmp_path, keep=watch
        )
        run(process, {"unet": lambda latents: 0.1 * latents})
        made = canvas.read(0, 24)[:, 9:15, 2:7]
    assert torch.equal(made[:, mask], known[:, mask])
    assert made[0, 2, 3] != 4
    assert seen[0] > 0.5
    assert seen[-1] == 0


def test_between_steps_known_cells_have_the_noise_of_the_next_step() -> None:
    scheduler: Any = fresh_scheduler(scheduler_named("ddim", CONFIG), 10)
    latents = torch.full((1, 60, 60), 2.0)
    everywhere = torch.ones(60, 60, dtype=torch.bool)
    place = slice(0, 60), slice(0, 60)
    keep = keep_known(latents, place, everywhere, scheduler, torch.Generator().manual_seed(0))
    abar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[6])])
    band = keep(5, 0, torch.zeros(1, 60, 60))
    assert float(band.mean()) == pytest.approx(2 * abar**0.5, abs=0.05)
    assert float(band.std()) == pytest.approx((1 - abar) ** 0.5, rel=0.05)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(9, 30), st.integers(9, 30))
def test_cells_are_those_that_lie_wholly_within(top: int, left: int, h: int, w: int) -> None:
    known = region(h, w, top, left)
    rows, columns = known.cells(4)
    assert rows.start * 4 >= top > (rows.start - 1) * 4
    assert rows.stop * 4 <= top + h < (rows.stop + 1) * 4
    assert columns.start * 4 >= left > (columns.start - 1) * 4
    assert columns.stop * 4 <= left + w < (columns.stop + 1) * 4
    assert known.cell_mask(4).shape == (rows.stop - rows.start, columns.stop - columns.start)
    assert known.cell_mask(4).all()


def test_a_cell_with_a_pixel_that_is_not_kept_is_not_known() -> None:
    mask = np.ones((14, 18), bool)
    mask[7, 10] = False  # of the image: row 9, column 12
    cells = region(14, 18, top=2, left=2, mask=mask).cell_mask(4)
    expected = torch.ones(3, 4, dtype=torch.bool)
    expected[1, 2] = False  # the region's cells begin at row 4, column 4
    assert torch.equal(cells, expected)


def means(images: Tensor) -> Tensor:
    """An encoder: means of blocks of 4 pixels."""
    return torch.nn.functional.avg_pool2d(images, 4)


@pytest.mark.parametrize("side", [4, 16])
def test_windows_of_a_region_are_encoded_to_the_latents_of_the_whole(side: int) -> None:
    known = region(50, 70, top=6, left=3)
    rows, columns = known.cells(4)
    most: list[int] = []

    def encoder(images: Tensor) -> Tensor:
        most.append(images.shape[-1])
        return means(images)

    latents = run(known.encode(4, side, torch.zeros(1), 0.5), {"encoder": encoder})
    image = torch.from_numpy(known.pixels).movedim(-1, 0)[None].float() / 127.5 - 1
    whole = means(image[:, :, 2:50, 1:69])[0] * 0.5
    assert latents.shape == (3, rows.stop - rows.start, columns.stop - columns.start)
    assert torch.allclose(latents, whole[:, : latents.shape[1], : latents.shape[2]], atol=1e-5)
    assert max(most) <= side * 4


def test_weights_rise_from_the_edges_but_not_from_those_of_the_image() -> None:
    weights = region(10, 12, top=0, left=5).weights(30, 40, 2)
    assert weights[0, 6] == 1  # the image's own edge
    assert weights[:, 6].tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 0.75, 0.25]
    assert weights[4].tolist() == [0.25, 0.75, 1, 1, 1, 1, 1, 1, 1, 1, 0.75, 0.25]
    assert (region(10, 12).weights(10, 12, 2) == 1).all()


def test_weights_of_a_mask_are_zero_outside_it() -> None:
    mask = np.zeros((12, 12), bool)
    mask[2:9, 3:12] = True
    weights = region(12, 12, mask=mask).weights(12, 12, 2)
    assert (weights[~mask] == 0).all()
    assert (weights[mask] > 0).all()
    assert weights[5, 3:7].tolist() == [0.25, 0.75, 1, 1]
    assert weights[5, 11] == 1  # at the image's edge


@given(st.integers(1, 9))
def test_pasting_band_by_band_is_pasting_at_once(rows: int) -> None:
    known = region(12, 9, top=5, left=4)
    image = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    weights = known.weights(24, 20, 2)
    whole = known.paste(0, image, weights)
    bands = [known.paste(top, image[top : top + rows], weights) for top in range(0, 24, rows)]
    assert np.array_equal(np.concatenate(bands), whole)
    assert np.array_equal(whole[7:15, 6:11], known.pixels[2:10, 2:7])
    assert np.array_equal(whole[:5], image[:5])
    assert np.array_equal(whole[:, :4], image[:, :4])


@pytest.mark.parametrize(
    ("pixels", "mask", "words"),
    [
        (np.zeros((8, 8), np.uint8), None, "must be uint8"),
        (np.zeros((8, 8, 3), np.float32), None, "float32"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((8, 9), bool), "the mask has the shape"),
    ],
)
def test_what_is_no_region_is_refused(pixels: Any, mask: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        KnownRegion(pixels, 0, 0, mask)


def test_a_region_outside_or_without_a_cell_is_refused() -> None:
    region(16, 16, 4, 4).check(20, 20, 4)
    for top, left in ((-1, 0), (5, 0), (0, 5)):
        with pytest.raises(InvalidInput, match="not within the image"):
            region(16, 16, top, left).check(20, 20, 4)
    with pytest.raises(InvalidInput, match="keep a larger part"):
        region(7, 16).check(20, 20, 4)
    with pytest.raises(InvalidInput, match="keep a larger part"):
        region(16, 16, mask=np.zeros((16, 16), bool)).check(20, 20, 4)
