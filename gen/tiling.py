"""Images larger than a network's window: its answers blended, window by window, row by row.

At fixed noisy latents, the estimate of x0 is an affine function of the network's output (noise, v
or x0) with the same coefficients everywhere. So blending estimates of x0 over windows, as Graikos
et al. 2024 do (arXiv 2312.07330, section 3.3), is blending outputs, and any scheduler can then
take the whole canvas one step. What must be in memory is a row of windows, never the canvas.

How windows lie and are weighted was chosen where everything is known: for stationary Gaussian
textures, what a sampler with the exact denoiser of every window draws is Gaussian too, and its
covariance a product of matrices. There, `shifted` windows with a `bell` come several times nearer
to the truth than the paper's many windows of equal weight (the tests repeat it).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.types import Process

GOLDEN = (5**0.5 - 1) / 2
BELL_WIDTH = 0.3  # of half a window; 0.25 to 0.35 are as good


@dataclass(frozen=True)
class Layout:
    """Windows of `side` cells whose upper left corners are all pairs of `tops` and `lefts`."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    side: int

    @property
    def num_windows(self) -> int:
        """How often the network answers for one step."""
        return len(self.tops) * len(self.lefts)


def overlapping(height: int, width: int, side: int, stride: int) -> Layout:
    """Windows every `stride` cells, the last ones at the edge; the paper's stride is side / 4."""
    _check(height, width, side)
    if not 1 <= stride <= side:
        raise InvalidInput(f"stride is {stride}, but must be from 1 to the window's {side}")
    tops, lefts = (
        tuple(sorted({*range(0, length - side, stride), length - side}))
        for length in (height, width)
    )
    return Layout(tops, lefts, side)


def shifted(
    height: int, width: int, side: int, overlap: int, num_steps: int, generator: torch.Generator
) -> list[Layout]:
    """For each step windows side by side, neighbours sharing `overlap` cells, from another start.

    Seams so average out over the steps, for far fewer windows than one every side / 4. From a
    random one on, starts go round by the golden ratio: they are spread evenly over any number of
    steps, and a cell at a seam is well within a window at the next step.
    """
    _check(height, width, side)
    if not 0 <= overlap < side:
        raise InvalidInput(f"overlap is {overlap}, but must be from 0 to {side - 1}")
    stride = side - overlap
    begin = torch.rand(2, 1, generator=generator, dtype=torch.float64)
    turns = (begin + GOLDEN * torch.arange(num_steps)) % 1
    firsts = (turns * stride).long().T.tolist()
    return [
        Layout(_starts(height, side, stride, top), _starts(width, side, stride, left), side)
        for top, left in firsts
    ]


def _starts(length: int, side: int, stride: int, first: int) -> tuple[int, ...]:
    """Starts at first + k * stride, and at both edges where those leave cells uncovered."""
    last = length - side
    inner = [start for start in range(first, last, stride) if start > 0]
    return tuple(sorted({0, *inner, last}))


def _check(height: int, width: int, side: int) -> None:
    if min(height, width) < side:
        raise InvalidInput(f"the canvas is {height} x {width} cells, but a window is {side}")


def bell(side: int) -> Tensor:
    """Weights (side, side) that leave each cell nearly all to the window whose middle is nearest.

    At its edge a window knows least, since it does not see what is beyond. Where two meet, one
    fades into the other within about a cell.
    """
    line = torch.exp(-((torch.linspace(-1, 1, 2 * side + 1)[1::2] / BELL_WIDTH) ** 2))
    return line[:, None] * line[None]


def ramp(side: int, margin: int) -> Tensor:
    """Weights (side, side) that fall linearly within `margin` of the edge, never to zero."""
    distance = torch.arange(side).minimum(torch.arange(side).flip(0)) + 0.5
    line = (distance / max(margin, 0.5)).clamp_max(1)
    return line[:, None] * line[None]


Answer = Callable[[int, Sequence[int]], Process[Tensor]]
"""(top, lefts) -> what belongs there, (N, C, side, side): one for each of N lefts."""

Emit = Callable[[int, Tensor], None]
"""(top, rows (C, h, W)), from top to bottom, without a gap."""


def blend(layout: Layout, width: int, weights: Tensor, answer: Answer, emit: Emit) -> Process[None]:
    """Weighted means of overlapping windows, passed on as soon as no window below reaches them.

    Args:
        layout: covers the whole width.
        width: in cells.
        weights: (side, side), positive.
        answer: asked for a row of windows at a time.
        emit: gets finished rows, before `answer` is asked for anything below them.
    """
    rows = _Rows(layout, width, weights)
    for top, below in zip(layout.tops, [*layout.tops[1:], None], strict=True):
        windows = yield from answer(top, layout.lefts)
        rows.add(top, windows.float())
        for start, finished in rows.take(below):
            emit(start, finished)


class _Rows:
    """Sums of windows over the rows that are not finished."""

    def __init__(self, layout: Layout, width: int, weights: Tensor) -> None:
        self.layout = layout
        self.width = width
        self.weights = weights
        self.top = 0
        self.sums: Tensor | None = None  # (C, h, W)
        self.total = torch.zeros(0, width)

    def add(self, top: int, windows: Tensor) -> None:
        side = self.layout.side
        weights = self.weights.to(windows.device)
        self._reach(top + side, windows)
        assert self.sums is not None
        place = slice(top - self.top, top - self.top + side)
        for left, window in zip(self.layout.lefts, windows, strict=True):
            self.sums[:, place, left : left + side] += window * weights
            self.total[place, left : left + side] += weights

    def take(self, bottom: int | None) -> Iterator[tuple[int, Tensor]]:
        """The rows above `bottom`, or all of them."""
        assert self.sums is not None
        count = self.sums.shape[1] if bottom is None else bottom - self.top
        if count > 0:
            yield self.top, self.sums[:, :count] / self.total[:count]
            self.sums, self.total = self.sums[:, count:].clone(), self.total[count:].clone()
            self.top += count

    def _reach(self, bottom: int, like: Tensor) -> None:
        if self.sums is None:
            self.sums = like.new_zeros(like.shape[1], 0, self.width)
            self.total = like.new_zeros(0, self.width)
        room = bottom - self.top - self.sums.shape[1]
        if room > 0:
            self.sums = torch.cat([self.sums, like.new_zeros(len(self.sums), room, self.width)], 1)
            self.total = torch.cat([self.total, like.new_zeros(room, self.width)])
