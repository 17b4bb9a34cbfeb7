"""Windows cover everything, and blending them is a weighted mean."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gen.engine import run
from gen.errors import InvalidInput
from gen.tiling import Answer, Layout, bell, blend, overlapping, ramp, shifted
from gen.types import ModelCall, Process

SIDES = st.integers(2, 9)
EXTRA = st.integers(0, 40)


def weights_of(starts: Sequence[int], length: int, weights: Tensor) -> Tensor:
    """Sums (length,) of weights (side,); rows and columns multiply, so one line tells it all."""
    total = torch.zeros(length)
    for start in starts:
        total[start : start + len(weights)] += weights
    return total


@given(SIDES, EXTRA, EXTRA, st.data())
def test_every_cell_has_a_positive_weight_and_no_window_leaves_the_canvas(
    side: int, more_rows: int, more_columns: int, data: st.DataObject
) -> None:
    height, width = side + more_rows, side + more_columns
    stride = data.draw(st.integers(1, side))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    overlap = data.draw(st.integers(0, side - 1))
    for layout in (
        overlapping(height, width, side, stride),
        *shifted(height, width, side, overlap, 3, generator),
    ):
        for weights in (ramp(side, side // 4), bell(side), torch.ones(side, side)):
            assert weights.min() > 0
            line = weights[side // 2]
            assert weights_of(layout.tops, height, line).min() > 0
            assert weights_of(layout.lefts, width, line).min() > 0
        assert min(*layout.tops, *layout.lefts) == 0
        assert max(layout.tops) == height - side
        assert max(layout.lefts) == width - side
        assert list(layout.tops) == sorted(set(layout.tops))


def test_the_papers_layout_has_169_windows() -> None:
    assert overlapping(256, 256, 64, 16).num_windows == 169


def test_shifted_windows_call_the_network_a_sixth_as_often_or_less() -> None:
    for cells in (128, 192, 256, 512):  # of 8 pixels
        paper = overlapping(cells, cells, 16, 4).num_windows
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            layouts = shifted(cells, cells, 16, 4, 25, generator)
            assert sum(layout.num_windows for layout in layouts) / 25 <= paper / 6


def starts_of(num_steps: int, seed: int) -> list[int]:
    """First starts within the canvas, in 0..7, of windows of 8 cells."""
    layouts = shifted(40, 40, 8, 0, num_steps, torch.Generator().manual_seed(seed))
    return [layout.tops[1] % 8 for layout in layouts]


def test_starts_are_equally_likely_at_every_step() -> None:
    for step in (0, 4):
        counts = torch.tensor([starts_of(5, seed)[step] for seed in range(1600)]).bincount()
        assert counts.min() > 140  # 200 each, a deviation of 13
        assert len(counts) == 8


@given(st.integers(0, 999))
def test_few_steps_have_seams_everywhere_and_the_next_one_elsewhere(seed: int) -> None:
    starts = starts_of(13, seed)
    # 13 points go round a circle of 1 with gaps below 1/8; independent ones would leave an eighth
    # empty in 18 of 100 runs
    assert len(set(starts)) == 8
    turns = [(second - first) % 8 for first, second in pairwise(starts)]
    assert set(turns) <= {4, 5}


def test_rows_and_columns_start_independently() -> None:
    layouts = [
        shifted(40, 40, 8, 0, 1, torch.Generator().manual_seed(seed))[0] for seed in range(400)
    ]
    pairs = {(layout.tops[1] % 8, layout.lefts[1] % 8) for layout in layouts}
    assert len(pairs) > 55  # of 64


@pytest.mark.parametrize("side", [7, 16, 64])
def test_a_bell_leaves_a_cell_to_the_window_whose_middle_is_nearest(side: int) -> None:
    weights = bell(side)
    assert torch.equal(weights, weights.flip(0))
    assert torch.equal(weights, weights.T)
    line = weights[side // 2]
    stride = side - side // 4
    shares = line[stride:] / (line[stride:] + line[: side - stride])  # of the left window
    middle = len(shares) / 2
    assert (shares[: int(middle - side / 16)] > 0.95).all()
    assert (shares[math.ceil(middle + side / 16) :] < 0.05).all()


def test_a_ramp_rises_linearly_to_one() -> None:
    assert ramp(8, 2)[4].tolist() == [0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25]
    assert torch.equal(ramp(5, 0), torch.ones(5, 5))


def echo(rows: Tensor, side: int) -> Answer:
    """Windows cut from an image: blended, they are the image."""

    def answer(top: int, lefts: Sequence[int]) -> Process[Tensor]:
        windows = torch.stack([rows[:, top : top + side, x : x + side] for x in lefts])
        return (yield ModelCall("unet", (windows,)))

    return answer


def collect(
    layout: Layout, width: int, answer: Answer, weights: Tensor
) -> list[tuple[int, Tensor]]:
    """(top, rows) that `blend` emits."""
    emitted: list[tuple[int, Tensor]] = []
    process = blend(layout, width, weights, answer, lambda top, r: emitted.append((top, r)))
    run(process, {"unet": lambda windows: windows})
    return emitted


@given(SIDES, EXTRA, EXTRA, st.integers(0, 99))
def test_windows_of_an_image_blend_to_the_image(
    side: int, more_rows: int, more_columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    height, width = side + more_rows, side + more_columns
    image = torch.randn(2, height, width, generator=generator)
    layout = shifted(height, width, side, seed % side, 1, generator)[0]
    emitted = collect(layout, width, echo(image, side), bell(side))
    assert [top for top, _ in emitted] == sorted({0, *layout.tops[1:]})
    assert torch.allclose(torch.cat([rows for _, rows in emitted], dim=1), image, atol=1e-5)


def test_overlaps_are_weighted_means() -> None:
    def answer(top: int, lefts: Sequence[int]) -> Process[Tensor]:
        values = torch.tensor([float(left) for left in lefts])
        return (yield ModelCall("unet", (values.view(-1, 1, 1, 1).expand(-1, 1, 4, 4),)))

    emitted = collect(Layout((0,), (0, 2), 4), 6, answer, ramp(4, 2))
    row = emitted[0][1][0, 1]
    # weights of a window: 0.25 0.75 0.75 0.25 in each direction
    expected = [0, 0, 2 * 0.25 / (0.75 + 0.25), 2 * 0.75 / (0.75 + 0.25), 2, 2]
    assert torch.allclose(row, torch.tensor(expected))


@pytest.mark.parametrize(
    ("size", "words"), [((5, 16), "a window is 8"), ((16, 5), "a window is 8")]
)
def test_a_canvas_smaller_than_a_window_is_refused(size: tuple[int, int], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        overlapping(*size, 8, 2)
    with pytest.raises(InvalidInput, match=words):
        shifted(*size, 8, 0, 1, torch.Generator())


def test_wrong_strides_and_overlaps_are_refused() -> None:
    with pytest.raises(InvalidInput, match="stride is 9"):
        overlapping(16, 16, 8, 9)
    with pytest.raises(InvalidInput, match="overlap is 8"):
        shifted(16, 16, 8, 8, 1, torch.Generator())
