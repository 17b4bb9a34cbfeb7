"""Fields of embeddings: arcs on the sphere, and what lies where."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gen.embedding_field import EmbeddingField, slerp
from gen.errors import InvalidInput

E0, E1, E2, E3 = torch.eye(4)


def test_a_third_of_a_right_angle_is_thirty_degrees() -> None:
    point = slerp(E0[None], E1[None], torch.tensor([1 / 3]))
    expected = [math.cos(math.pi / 6), math.sin(math.pi / 6), 0, 0]
    assert torch.allclose(point, torch.tensor([expected]))


@given(st.floats(0, 1), st.integers(0, 1000))
def test_every_point_of_an_arc_has_unit_length_and_its_share_of_the_angle(
    fraction: float, seed: int
) -> None:
    first, second = F.normalize(
        torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(seed)), dim=-1
    )
    point = slerp(first, second, torch.tensor([fraction]))
    angle = float((first * second).sum().clamp(-1, 1).arccos())
    covered = float((first * point).sum().clamp(-1, 1).arccos())
    assert float(point.norm()) == pytest.approx(1, abs=1e-5)
    assert covered == pytest.approx(fraction * angle, abs=2e-3)


@pytest.mark.parametrize("second", [E0, -E0, F.normalize(E0 + 1e-4 * E1, dim=0)])
def test_between_equal_and_opposite_ends_points_have_unit_length(second: Tensor) -> None:
    points = slerp(E0.expand(4, 4), second.expand(4, 4), torch.tensor([0.0, 0.3, 0.5, 1.0]))
    assert torch.allclose(points.norm(dim=-1), torch.ones(4))
    assert torch.allclose(points[[0, 3]], torch.stack([E0, second]))


def test_a_distinct_corner_is_seen_in_that_corner() -> None:
    grid = E0.repeat(4, 6, 1)
    grid[0, 5] = E1  # top right
    field = EmbeddingField(grid, (64, 64))
    corners = torch.tensor([[32.0, 352], [224, 32], [32, 32], [224, 352]])  # (y, x)
    assert torch.equal(field.at(corners), torch.stack([E1, E0, E0, E0]))


def test_a_step_between_columns_is_seen_halfway_between_their_centres() -> None:
    grid = torch.stack([E0, E0, E1, E1]).expand(3, 4, 4)
    field = EmbeddingField(grid, (64, 64))
    # the centres of columns 1 and 2 are at 96 and 160: the step is where columns meet, at 128
    halfway = field.at(torch.tensor([[96.0, 128.0]]))
    assert torch.allclose(halfway, F.normalize(E0 + E1, dim=0)[None])
    assert torch.allclose(
        field.at(torch.tensor([[96.0, 96.0], [96.0, 160.0]])), torch.stack([E0, E1])
    )


def test_where_the_pitch_is_a_window_it_is_the_papers_field() -> None:
    """The window with its corner at (i, j) mixes by fractions i / 64 and j / 64 of a patch."""
    grid = F.normalize(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    field = EmbeddingField(grid, (64, 64))
    padded = torch.cat([grid, grid[-1:]])
    padded = torch.cat([padded, padded[:, -1:]], dim=1)
    for top, left in [(0, 0), (16, 48), (64, 100), (128, 256), (97, 3)]:
        row, column = top // 64, left // 64
        down, across = torch.tensor([top % 64 / 64]), torch.tensor([left % 64 / 64])
        upper = slerp(padded[row, column][None], padded[row, column + 1][None], across)
        lower = slerp(padded[row + 1, column][None], padded[row + 1, column + 1][None], across)
        centre = torch.tensor([[top + 32.0, left + 32.0]])
        assert torch.allclose(field.at(centre), slerp(upper, lower, down), atol=1e-5)


def test_beyond_the_outer_centres_nothing_changes() -> None:
    grid = torch.stack([torch.stack([E0, E1]), torch.stack([E2, E3])])
    field = EmbeddingField(grid, (10, 20))
    assert field.size == (20, 40)
    outside = torch.tensor([[-50.0, -50], [0, 39.9], [19, 0], [500, 500]])
    assert torch.equal(field.at(outside), torch.stack([E0, E1, E2, E3]))


def test_a_stretched_field_has_the_same_layout() -> None:
    grid = F.normalize(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    field = EmbeddingField(grid, (64, 64))
    larger = field.stretched(384, 960)
    assert larger.size == (384, 960)
    places = torch.tensor([[10.0, 20], [100, 300], [180, 111]])
    scale = torch.tensor([384 / 192, 960 / 320])
    assert torch.allclose(larger.at(places * scale), field.at(places), atol=1e-5)


def test_a_field_of_an_image_that_ends_within_a_cell_stretches_as_the_image_does() -> None:
    grid = torch.stack([E0, E1, E2]).expand(2, 3, 4)
    field = EmbeddingField(grid, (64, 64), (100, 150))
    assert field.size == (100, 150)
    larger = field.stretched(200, 300)
    assert larger.size == (200, 300)
    # the centre of column 2 is at pixel 160, beyond an image of 150
    assert torch.allclose(larger.at(torch.tensor([[64.0, 320.0]])), E2[None])
    assert torch.allclose(larger.at(torch.tensor([[64.0, 192.0]])), E1[None])


@pytest.mark.parametrize(
    ("grid", "pitch", "words"),
    [
        (torch.ones(3, 4), (1, 1), "rows, columns"),
        (torch.ones(0, 2, 4), (1, 1), "none of them zero"),
        (torch.zeros(2, 2, 4), (1, 1), "no direction"),
        (torch.full((1, 1, 4), float("nan")), (1, 1), "no direction"),
        (torch.ones(1, 1, 4), (0, 1), "pitch"),
    ],
)
def test_what_is_no_field_is_refused(grid: Tensor, pitch: tuple[float, float], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        EmbeddingField(grid, pitch)


def test_embeddings_of_another_encoder_are_refused() -> None:
    with pytest.raises(InvalidInput, match="4 dimensions, but the model was trained with 64"):
        EmbeddingField(torch.ones(1, 1, 4), (1, 1)).check_dim(64)
