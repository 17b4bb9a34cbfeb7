"""How many copies of training tiles would be found? Altered ones are planted to be found.

Each is a training tile from anywhere, in any of the eight positions of a square, laid over a window
of an image so far out of step with it as the windows that are looked at may be: an eighth of a tile
up or down and left or right. Other windows see it too, so that a little more is found in an image.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics import planted, sensitivity
from gen.metrics.calibration import rate_of
from gen.metrics.planted import Alteration, Recall
from gen.metrics.structure import factor_of, structure
from gen.metrics.tile_copies import TileIndex, Windows, match_windows, shows_something
from gen.metrics.views import View, to_tensor

BATCH = 32
_TRIES = 50  # for a window of tissue
BLUR = 1.0  # pixels: about what an autoencoder takes away


def _each_channel(alter: Alteration) -> Alteration:
    """An alteration of grey images for those of several channels."""

    def altered(images: Tensor, rng: np.random.Generator) -> Tensor:
        grey = alter(images.flatten(0, 1)[:, None], rng)
        return grey.unflatten(0, images.shape[:2])[:, :, 0]

    return altered


def unaltered(images: Tensor, rng: np.random.Generator) -> Tensor:
    """As they are."""
    return images


def blur(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian, of one pixel."""
    return sensitivity.blur(images, BLUR)


def everything(images: Tensor, rng: np.random.Generator) -> Tensor:
    """All of the others, one after another."""
    for alter in (ALTERATIONS[name] for name in ("tone", "blur", "noise", "jpeg")):
        images = alter(images, rng)
    return images


ALTERATIONS: Mapping[str, Alteration] = {
    "none": unaltered,
    "tone": planted.tone,
    "blur": _each_channel(blur),
    "noise": planted.noise,
    "jpeg": _each_channel(planted.jpeg),
    "everything": everything,
}
"""(images (N, 3, S, S) uint8, generator) -> the same shape and type, each altered by its draw."""


def random_windows(
    views: Sequence[View], side: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[tuple[int, int, int]]]:
    """Windows of tissue (count, side, side, 3) of pictures, and (picture, top, left) of each.

    Raises:
        InvalidInput: a picture is smaller than a window, or hardly any shows tissue.
    """
    rooms = [(view.height - side + 1, view.width - side + 1) for view in views]
    if not rooms or min(min(room) for room in rooms) < 1:
        raise InvalidInput(f"side is {side}, but pictures must be as large; leave smaller ones out")
    areas = np.array([height * width for height, width in rooms], float)
    windows, places = [], []
    for _ in range(_TRIES * count):
        number = int(rng.choice(len(views), p=areas / areas.sum()))
        top, left = (int(rng.integers(room)) for room in rooms[number])
        window = views[number].read(top, left, side, side)
        if shows_something(window):
            windows.append(window)
            places.append((number, top, left))
        if len(places) == count:
            return np.stack(windows), places
    names = ", ".join(view.name for view in views)
    raise InvalidInput(f"{names} show next to no tissue, but copies of some are needed")


def laid_over(windows: Tensor, tiles: Tensor, rng: np.random.Generator) -> Tensor:
    """Tiles (N, 3, S, S) in a drawn position each on windows of the same shape, out of step."""
    side = windows.shape[-1]
    result = windows.clone()
    for window, tile in zip(result, tiles, strict=True):
        turned = tile.rot90(int(rng.integers(4)), (-2, -1))
        turned = turned.flip(-1) if rng.random() < 0.5 else turned
        y, x = rng.integers(-(side // 8), side // 8 + 1, 2).tolist()
        to_y, to_x = (slice(max(0, each), side + min(0, each)) for each in (y, x))
        of_y, of_x = (slice(max(0, -each), side - max(0, each)) for each in (y, x))
        window[:, to_y, to_x] = turned[:, of_y, of_x]
    return result


def planted_recall(
    training: Sequence[View],
    images: Sequence[View],
    index: TileIndex,
    encoder: Encoder,
    threshold: float,
    count: int = 50,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Recall]:
    """Recall by kind of alteration, of copies of the same tiles in the same windows.

    Args:
        training: the index's images, none smaller than a tile.
        images: what windows are taken from, none smaller than a tile.
        index: of the training images.
        encoder: the index's.
        threshold: of scores, above which a place is called a copy.
        count: tiles.
        seed: of all draws.
        report: told (copies looked for, of how many).
    """
    rng = np.random.default_rng(seed)
    tiles, origins = random_windows(training, index.tile_size, count, rng)
    windows, _ = random_windows(images, index.tile_size, count, rng)
    found: dict[str, Recall] = {}
    for number, (name, alter) in enumerate(ALTERATIONS.items()):
        altered = alter(to_tensor(tiles), np.random.default_rng(seed))
        copies = laid_over(to_tensor(windows), altered, np.random.default_rng(seed))
        scores, rows = [], []
        for batch in copies.split(BATCH):
            each_scores, each_rows = match_windows(_described(batch, index), index, encoder)
            scores += each_scores
            rows += each_rows
            report(number * count + len(scores), len(ALTERATIONS) * count)
        right = [_shows(index, row, origin) for row, origin in zip(rows, origins, strict=True)]
        found[name] = Recall(rate_of(np.array(scores) > threshold), rate_of(np.array(right)))
    return found


def _described(pixels: Tensor, index: TileIndex) -> Windows:
    factor = factor_of(index.tile_size)
    squares = pixels.movedim(1, -1).numpy()
    return Windows(pixels, torch.stack([structure(each, factor) for each in squares]))


def _shows(index: TileIndex, row: int, origin: tuple[int, int, int]) -> bool:
    """Whether a training window shows more than a quarter of what lies at an origin."""
    image, *corner = origin
    apart = np.abs(index.corners[row].numpy() - corner)
    return int(index.images[row]) == image and bool((apart < index.tile_size // 2).all())
