"""Fields of embeddings as processes: the encoder's own numbers, in bands, shared, from words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gen.embedding_field import EmbeddingField
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.known_region import KnownRegion
from gen.reference_field import embed_grid, reader
from pipelines.large_image import LargeImagePipeline

DIM, PATCH = 8, 32


@pytest.fixture(scope="module")
def pipeline(tiny_large_model: Path) -> LargeImagePipeline:
    return LargeImagePipeline.from_pretrained(tiny_large_model)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    pitch=st.integers(5, 40),
    patch=st.integers(4, 48),
    max_rows=st.integers(1, 9),
)
@settings(max_examples=15, deadline=None)
def test_a_grid_has_the_encoders_own_numbers(
    pipeline: LargeImagePipeline, height: int, width: int, pitch: int, patch: int, max_rows: int
) -> None:
    read = reader(noise(height, width))
    grid = run(embed_grid(read, height, width, pitch, patch), pipeline.networks, max_rows)
    assert torch.allclose(
        grid, pipeline.embedder.embed_grid(read, height, width, pitch, patch), atol=1e-5
    )


def test_a_reference_is_read_in_bands(
    pipeline: LargeImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen.reference_field.PIXELS_A_CALL", 4 * PATCH**2)
    heights, widths = [], []

    def read(top: int, left: int, height: int, width: int) -> Any:
        heights.append(height)
        widths.append(width)
        return np.full((height, width, 3), 99, np.uint8)

    run(pipeline.field_like(read, 3000, 400), pipeline.networks)
    assert max(heights) <= PATCH
    assert max(widths) <= 4 * PATCH
    assert len(heights) > 3000 // PATCH


def test_two_fields_share_the_forwards_of_an_engine(pipeline: LargeImagePipeline) -> None:
    pictures = [noise(50, 40, seed) for seed in (1, 2)]
    rows: list[int] = []
    embed = pipeline.networks["embedder"]

    def counted(patches: Tensor) -> Tensor:
        rows.append(len(patches))
        return embed(patches)

    engine = Engine({"embedder": counted}, max_rows=64, pad_rows=False)
    tickets = [engine.submit(pipeline.field_like(reader(picture), 50, 40)) for picture in pictures]
    engine.drain()
    # 4 rows of 3 patches each, of both at once
    assert rows == [6] * 4
    for ticket, picture in zip(tickets, pictures, strict=True):
        alone = run(pipeline.field_like(reader(picture), 50, 40), pipeline.networks)
        assert torch.allclose(ticket.result().grid, alone.grid, atol=1e-5)


def test_a_reference_gives_a_field_of_its_layout(pipeline: LargeImagePipeline) -> None:
    pixels = np.full((100, 170, 3), 240, np.uint8)
    pixels[64:, :64] = (90, 40, 120)
    field = run(pipeline.field_like(reader(pixels), 100, 170), pipeline.networks)
    assert field.grid.shape == (7, 11, DIM)
    assert field.size == (100, 170)
    differs = (field.grid - field.grid[0, -1]).norm(dim=-1) > 0.05
    assert differs[5, 1]
    assert not differs[:2, 6:].any()


def test_varied_images_lend_their_embeddings_and_no_others(pipeline: LargeImagePipeline) -> None:
    pictures = [np.full((PATCH, PATCH, 3), level, np.uint8) for level in (30, 220)]

    def like(picture: Any) -> EmbeddingField:
        return run(pipeline.field_like(reader(picture), PATCH, PATCH), pipeline.networks)

    field = run(pipeline.field_varied(pictures, 200, 300, seeded()), pipeline.networks)
    own = [like(picture).grid.flatten(0, 1) for picture in pictures]
    distances = torch.cdist(field.grid.flatten(0, 1), torch.cat(own))
    assert field.size == (200, 300)
    assert distances.min(dim=1).values.max() < 1e-3
    with pytest.raises(InvalidInput, match="images is empty"):
        run(pipeline.field_varied([], 10, 10), pipeline.networks)


@pytest.mark.parametrize("size", [(40, 50), (200, 120)])
def test_words_become_a_field_of_any_size(
    pipeline: LargeImagePipeline, size: tuple[int, int]
) -> None:
    def draw(words: str, seed: int) -> Tensor:
        process = pipeline.field_from_text(words, *size, 3, generator=seeded(seed))
        field = run(process, pipeline.networks)
        assert field.size == size
        return field.grid

    grid = draw("tumour", 1)
    assert grid.shape == (-(-size[0] // 16), -(-size[1] // 16), DIM)
    assert torch.allclose(grid.norm(dim=-1), torch.ones(grid.shape[:2]), atol=1e-5)
    assert torch.equal(grid, draw("tumour", 1))
    assert not torch.allclose(grid, draw("stroma", 1), atol=1e-4)


def test_without_a_prior_words_are_refused(tiny_large_model: Path) -> None:
    bare = LargeImagePipeline.from_pretrained(tiny_large_model)
    bare.prior = None
    with pytest.raises(InvalidInput, match="has no prior"):
        bare.field_from_text("stroma", 64, 64)


def test_around_a_kept_part_the_field_is_its_own_within_and_something_of_it_beyond(
    pipeline: LargeImagePipeline,
) -> None:
    pixels = noise(96, 64)
    field = run(
        pipeline.field_around(KnownRegion(pixels, 64, 32), 256, 160, seeded()), pipeline.networks
    )
    own = run(pipeline.field_like(reader(pixels), 96, 64), pipeline.networks)
    assert field.size == (256, 160)
    # entries lie on a pitch of 16, and so does the corner of the kept part
    assert torch.allclose(field.grid[4:10, 2:6], own.grid, atol=1e-6)
    assert not torch.allclose(field.grid[4:10, 6:10], own.grid, atol=1e-3)
    again = run(
        pipeline.field_around(KnownRegion(pixels, 64, 32), 256, 160, seeded()), pipeline.networks
    )
    assert torch.equal(field.grid, again.grid)


def test_what_a_mask_leaves_out_is_no_example(pipeline: LargeImagePipeline) -> None:
    pixels = np.zeros((96, 192, 3), np.uint8)
    pixels[:, 96:] = noise(96, 96)
    mask = np.zeros((96, 192), bool)
    mask[:, :64] = True  # black for all of a patch around
    black = run(pipeline.field_like(reader(pixels[:, :64]), 96, 64), pipeline.networks).grid[0, 0]
    field = run(
        pipeline.field_around(KnownRegion(pixels, 32, 32, mask), 160, 256, seeded()),
        pipeline.networks,
    )
    assert torch.allclose(field.grid, black.expand_as(field.grid), atol=1e-5)


def test_a_kept_part_that_does_not_fit_is_refused(pipeline: LargeImagePipeline) -> None:
    with pytest.raises(InvalidInput, match="not within the image of 64 x 64"):
        pipeline.field_around(KnownRegion(noise(96, 64), 0, 0), 64, 64)
