"""Which places of a large image are copies of a training tile.

A place is a tile of the image, and is looked at through sixteen windows of its size, a quarter of
a tile apart, so that a copy that begins anywhere in it fills three quarters of one. Windows are
looked up by embedding among windows of the training images, as far apart; those found are laid over
by structure, in all eight positions of a square, shifted as far as that leaves open.

An encoder of tissue that was trained on all positions hardly knows up from down: candidates of one
look-up in each of eight positions held no more of the planted copies, at eight times the cost.
Windows of glass or flat ground are left out of both: they are alike, and copies of nobody.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics.aligned import halved
from gen.metrics.aligned import similarity as correlation
from gen.metrics.side_by_side import side_by_side
from gen.metrics.structure import CONTEXT, LUMA, factor_of, orientations, structure
from gen.metrics.views import View, bands, embed, starts, to_tensor

BY_EMBEDDING = 48  # training windows a window
ALIGNED = 4  # of those, laid over at full size, after all were at half
WINDOWS = 4  # a tile, along a side
# Grey levels' standard deviation below which one of 4 x 4 parts of a window shows nothing. Two
# windows of glass with one thing in a corner are easily laid over each other.
_FLAT, _CELLS = 8.0, 4
_SIMILARITIES = 2**23  # held at a time: 32 MB

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TileIndex:
    """Windows of training images as copies are looked up among them.

    `embeddings` (M, D) of unit length, standardised by `centre` and `spread` (D,); `images` (M,)
    which image each is of and `corners` (M, 2) its top and left in it; `structures`, one an image,
    with `margin` zeros around. It holds the training images' structure: do not publish it.
    """

    embeddings: Tensor
    centre: Tensor
    spread: Tensor
    images: Tensor
    corners: Tensor
    structures: list[Tensor]
    names: tuple[str, ...]
    tile_size: int
    margin: int

    def standardise(self, embeddings: Tensor) -> Tensor:
        """Directions from the training windows' mean, each axis in its spread."""
        return F.normalize((embeddings - self.centre) / self.spread, dim=-1)

    def surroundings(self, rows: Tensor) -> Tensor:
        """Structures (K, S, S) of windows and `margin` around them."""
        factor = factor_of(self.tile_size)
        side = self.tile_size // factor + 2 * self.margin
        cut = []
        for row in rows.tolist():
            top, left = (self.corners[row] // factor).tolist()
            whole = self.structures[int(self.images[row])]
            cut.append(whole[top : top + side, left : left + side])
        return torch.stack(cut).float()

    def overlapping(self, image: int, corners: Tensor) -> Tensor:
        """Which windows (N, M) of an image show pixels that windows at corners (N, 2) show."""
        reach = self.tile_size + self.margin * factor_of(self.tile_size)
        near = ((corners[:, None] - self.corners[None]).abs() < reach).all(-1)
        return near & (self.images == image)


def index_tiles(
    views: Sequence[View], encoder: Encoder, tile_size: int, report: Report = lambda *_: None
) -> TileIndex:
    """Prepare training images for look-ups; their bands are read one at a time.

    Args:
        views: at the magnification of what is looked up; those smaller than a tile are left out.
        encoder: of windows.
        tile_size: side in pixels of what counts as a copy.
        report: told (images done, of how many).

    Raises:
        InvalidInput: no image is as large as a tile, or none shows tissue.
    """
    stride, factor = max(1, tile_size // WINDOWS), factor_of(tile_size)
    margin = -(-stride // (2 * factor)) + 2
    usable = [view for view in views if min(view.height, view.width) >= tile_size]
    if not usable:
        raise InvalidInput(
            f"tile_size is {tile_size}, but none of {len(views)} training images is as large;"
            " choose another magnification or name other images"
        )
    embeddings, images, corners, structures = [], [], [], []
    for number, view in enumerate(usable):
        for top, lefts, windows in bands(view, tile_size, stride):
            kept = [i for i, window in enumerate(windows) if shows_something(window)]
            if kept:
                embeddings.append(embed(encoder, to_tensor(windows[kept])))
                images += [number] * len(kept)
                corners += [(top, lefts[i]) for i in kept]
        whole = torch.cat([each.half() for each in _structure_bands(view, factor)])
        structures.append(F.pad(whole, (margin,) * 4))
        report(number + 1, len(usable))
    if not embeddings:
        raise InvalidInput(
            f"none of {len(views)} training images shows tissue in a tile of {tile_size} pixels;"
            " name others"
        )
    values = torch.cat(embeddings)
    centre, spread = values.mean(0), values.std(0, correction=0).clamp_min(1e-6)
    return TileIndex(
        F.normalize((values - centre) / spread, dim=-1),
        centre,
        spread,
        torch.tensor(images),
        torch.tensor(corners),
        structures,
        tuple(view.name for view in usable),
        tile_size,
        margin,
    )


def shows_something(window: NDArray[np.uint8]) -> bool:
    """Whether at least half of a window (S, S, 3) is neither glass nor flat ground."""
    cell = len(window) // _CELLS
    grey = window[: cell * _CELLS, : cell * _CELLS] @ np.array(LUMA, np.float32)
    spread = grey.reshape(_CELLS, cell, _CELLS, cell).std((1, 3))
    return float((spread >= _FLAT).mean()) >= 0.5


def _structure_bands(view: View, factor: int, rows: int = 512) -> Iterator[Tensor]:
    """The structure of a picture from the top down."""
    step = rows * factor
    for top in range(0, view.height // factor * factor, step):
        bottom = min(view.height, top + step)
        yield _structure_rows(view, top, bottom, factor)


def _structure_rows(view: View, top: int, bottom: int, factor: int) -> Tensor:
    """Structure of rows [top, bottom) in sight of what is above and below."""
    above = min(CONTEXT, top // factor)
    end = min(view.height, bottom + CONTEXT * factor)
    first = top - above * factor
    seen = structure(view.read(first, 0, end - first, view.width), factor)
    return seen[above : above + (bottom - top) // factor]


@dataclass(frozen=True)
class Windows:
    """N windows: `pixels` (N, 3, S, S) uint8 and `structures` (N, s, s)."""

    pixels: Tensor
    structures: Tensor


@dataclass(frozen=True)
class TileMatches:
    """For each of N windows or places the most similar training window: `scores` in [-1, 1] and
    `rows` of the index, and the `corners` (N, 2) of the window."""

    scores: NDArray[np.float64]
    rows: NDArray[np.intp]
    corners: NDArray[np.intp]


def places_of(view: View, tile_size: int) -> list[tuple[int, int]]:
    """Top and left of patches of a picture, side by side."""
    tops, lefts = (starts(side, tile_size, tile_size) for side in (view.height, view.width))
    return [(top, left) for top in tops for left in lefts]


def match_places(
    view: View,
    places: Sequence[tuple[int, int]],
    index: TileIndex,
    encoder: Encoder,
    own: int | None = None,
    report: Report = lambda *_: None,
) -> TileMatches:
    """The most similar training window of each place of a picture, one place in memory at a time.

    Places that show nothing but glass or flat ground are left out.

    Args:
        view: the picture, at the index's magnification.
        places: of `places_of`, or some of them.
        index: of the training images.
        encoder: the index's.
        own: the image of the index that the picture is itself; windows that show the same pixels
            are no match. None: it is none of them.
        report: told (places done, of how many).
    """
    best: list[tuple[float, int, tuple[int, int]]] = []
    for done, place in enumerate(places, 1):
        windows, corners = _windows_at(view, place, index.tile_size)
        if corners:
            barred = None if own is None else index.overlapping(own, torch.tensor(corners))
            scores, rows = match_windows(windows, index, encoder, barred)
            first = int(np.argmax(scores))
            best.append((scores[first], rows[first], corners[first]))
        report(done, len(places))
    return TileMatches(
        np.array([score for score, _, _ in best], np.float64),
        np.array([row for _, row, _ in best], np.intp),
        np.array([corner for _, _, corner in best], np.intp).reshape(-1, 2),
    )


def _windows_at(
    view: View, place: tuple[int, int], side: int
) -> tuple[Windows, list[tuple[int, int]]]:
    """The windows of a place that show anything, and where they begin."""
    factor, stride = factor_of(side), max(1, side // WINDOWS)
    (top, left), reach = place, CONTEXT * factor
    bottom, right = (
        min(length, first + side + (WINDOWS - 1) * stride)
        for first, length in ((top, view.height), (left, view.width))
    )
    above, before = (min(CONTEXT, first // factor) * factor for first in place)
    end_y, end_x = min(view.height, bottom + reach), min(view.width, right + reach)
    seen = view.read(top - above, left - before, end_y - top + above, end_x - left + before)
    whole = structure(seen, factor)
    pixels, cut, corners = [], [], []
    for y in range(above, above + bottom - top - side + 1, stride):
        for x in range(before, before + right - left - side + 1, stride):
            window = seen[y : y + side, x : x + side]
            if shows_something(window):
                pixels.append(window)
                rows = whole[y // factor :, x // factor :]
                cut.append(rows[: side // factor, : side // factor])
                corners.append((top - above + y, left - before + x))
    if not corners:
        return Windows(torch.empty(0), torch.empty(0)), []
    return Windows(to_tensor(pixels), torch.stack(cut)), corners


@torch.no_grad()
def match_windows(
    windows: Windows, index: TileIndex, encoder: Encoder, barred: Tensor | None = None
) -> tuple[list[float], list[int]]:
    """Scores and rows of the most similar training windows; -1 and -1 where all are barred.

    Args:
        windows: N, of the index's tile size.
        index: of the training images.
        encoder: the index's.
        barred: (N, M) windows of the index that are no match.
    """
    queries = index.standardise(embed(encoder, windows.pixels))
    candidates = _nearest(queries, index.embeddings, barred)
    templates = orientations(windows.structures)

    def lay_over(number: int) -> tuple[float, int]:
        allowed = candidates[number]
        if barred is not None:
            allowed = allowed[~barred[number, allowed]]
        if not len(allowed):
            return -1.0, -1
        own = [each[number : number + 1] for each in templates]
        details = index.surroundings(allowed)[None]
        glance = correlation([halved(each) for each in own], halved(details))[0]
        kept = glance.topk(min(ALIGNED, len(allowed))).indices
        scores = correlation(own, details[:, kept])[0]
        best = int(scores.argmax())
        return float(scores[best]), int(allowed[kept[best]])

    with side_by_side() as pool:
        found = list(pool.map(lay_over, range(len(candidates))))
    return [score for score, _ in found], [row for _, row in found]


def _nearest(queries: Tensor, references: Tensor, barred: Tensor | None) -> Tensor:
    """Rows (N, K) of the references with the largest products that are not barred, if so many."""
    step = max(1, _SIMILARITIES // len(references))
    found = []
    for start in range(0, len(queries), step):
        products = queries[start : start + step] @ references.T
        if barred is not None:
            products = products.masked_fill(barred[start : start + step], -torch.inf)
        found.append(products.topk(min(BY_EMBEDDING, len(references))).indices)
    return torch.cat(found)
