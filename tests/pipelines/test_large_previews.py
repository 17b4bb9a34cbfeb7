"""Overviews of unfinished large images: the clean latents they estimate, and where these lie."""

from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.embedding_field import EmbeddingField
from gen.engine import run
from pipelines.large_image import LargeImagePipeline
from pipelines.large_previews import LONGEST_SIDE, Overview, decode_overview


@given(height=st.integers(8, 300), width=st.integers(8, 300), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_window_lands_where_it_lies_and_its_mean_is_kept(
    height: int, width: int, data: Any
) -> None:
    overview = Overview((height, width), 2)
    factor = -(-max(height, width) // LONGEST_SIDE)
    assert max(overview.latents.shape[2:]) <= LONGEST_SIDE
    # on the grid of the overview, so that no cell of it is seen in part
    top = factor * data.draw(st.integers(0, (height - 8) // factor))
    left = factor * data.draw(st.integers(0, (width - 8) // factor))
    side = factor * (8 // factor) or 8
    window = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(0))
    overview.add(window, torch.tensor([[top + side / 2, left + side / 2]]))
    seen = overview.latents[0].abs().sum(0).nonzero()
    assert seen.amin(0).tolist() == [top // factor, left // factor]
    assert seen.amax(0).tolist() == [(top + side - 1) // factor, (left + side - 1) // factor]
    if factor <= 8:
        cells = overview.latents[0, :, seen[0, 0] : seen[-1, 0] + 1, seen[0, 1] : seen[-1, 1] + 1]
        assert torch.allclose(cells.mean((1, 2)), window[0].mean((1, 2)), atol=1e-5)


def test_the_last_overview_is_the_finished_image_in_small(tiny_large_model: Path) -> None:
    pipeline = LargeImagePipeline.from_pretrained(tiny_large_model)
    field = EmbeddingField(torch.randn(2, 3, 8), (32, 32))
    overview = Overview(pipeline.canvas_size(64, 96), 4)
    bands: list[Any] = []
    process = pipeline.process(
        field,
        bands.append,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        on_denoised=overview.add,
    )
    run(process, pipeline.networks)
    pixels = run(decode_overview(overview.latents, pipeline.vae), pipeline.networks)
    assert pixels.shape == (1, 3, 64, 96)  # 16 x 24 cells are few enough to be kept
    image = torch.cat([torch.from_numpy(band) for band in bands]).movedim(-1, 0) / 255
    # all but the weights of overlapping windows
    assert (pixels[0] - image).abs().mean() < 0.1
