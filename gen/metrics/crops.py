"""Fréchet distance of crops: do parts of large images look like parts of real ones?

Crops overlap and neighbours resemble each other, so they are no independent draws. Each image is
cut into blocks of two crops a side that share no pixel, each block gives equally many crops, all
within it, and intervals and floor are over halves of the blocks. They cover that other places of
these slides might have been looked at, not that other slides might have been; and blocks that lie
side by side are still a little alike, so that intervals are somewhat too narrow.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics.frechet import frechet_distance
from gen.metrics.intervals import MIN_COUNT, AgainstFloor, Features, against_floor
from gen.metrics.views import View, blocks_of, embed, to_tensor

CROPS_A_BLOCK = 8  # twice as many as fit side by side
CROPS_A_SIDE = 2


def crop_features(
    views: Sequence[View],
    encoder: Encoder,
    crop_size: int,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda *_: None,
) -> NDArray[np.float64]:
    """Embeddings (blocks, CROPS_A_BLOCK, D) of unit length of random crops of pictures.

    Args:
        views: pictures at one magnification; of any size, a crop at a time is read.
        encoder: crops are resized to what it sees.
        crop_size: side in pixels.
        seed: of the places.
        report: told (blocks done, of how many).

    Raises:
        InvalidInput: a picture is smaller than a crop, or all together hold fewer than four blocks.
    """
    for view in views:
        if min(view.height, view.width) < crop_size:
            raise InvalidInput(
                f"crop_size is {crop_size}, but {view.name} has {view.height} x {view.width}"
                " pixels; choose smaller crops or leave it out"
            )
    blocks = [(view, each) for view in views for each in blocks_of(view, CROPS_A_SIDE * crop_size)]
    if len(blocks) < MIN_COUNT:
        raise InvalidInput(
            f"crop_size is {crop_size}, but there is room for {len(blocks)} blocks of"
            f" {CROPS_A_SIDE * crop_size} pixels a side in {', '.join(v.name for v in views)}, and"
            f" intervals need {MIN_COUNT}; choose smaller crops, or give larger or more images"
        )
    rng = np.random.default_rng(seed)
    features = []
    for view, block in blocks:
        tops, lefts = (
            first + rng.integers(0, length - crop_size + 1, CROPS_A_BLOCK)
            for first, length in ((block.top, block.height), (block.left, block.width))
        )
        crops = [
            view.read(int(top), int(left), crop_size, crop_size)
            for top, left in zip(tops, lefts, strict=True)
        ]
        features.append(embed(encoder, to_tensor(crops)).double().numpy())
        report(len(features), len(blocks))
    return np.stack(features)


def crop_distance(
    image: NDArray[np.float64], real: NDArray[np.float64], seed: int = 0
) -> AgainstFloor:
    """Fréchet distance of crops (blocks, crops, D) to real ones, beside that of real to real.

    `size` is of blocks. See the module for what the intervals cover.
    """

    def distance(first: Features, second: Features) -> float:
        width = image.shape[-1]
        return frechet_distance(first.reshape(-1, width), second.reshape(-1, width))

    made, true = (each.reshape(len(each), -1) for each in (image, real))
    return against_floor(distance, made, true, [str(row) for row in range(len(real))], seed=seed)
