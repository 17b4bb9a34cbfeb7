"""Does a large image show at each place what the field of embeddings asks for there?

Graikos et al. 2024 embed the finished image again and take the cosine to the condition. Embeddings
have much in common whatever they are of, so that cosine stands between two others: that to the
conditions of other places, which an image gets that shows the right tissue anywhere, and that of
the reference to its own field, halfway between the field's points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.embedding_field import EmbeddingField
from gen.encoders.encoder import Encoder
from gen.engine import run
from gen.errors import InvalidInput
from gen.metrics.intervals import Estimate, bootstrap_gap, bootstrap_mean
from gen.metrics.views import View, bands, embed, to_tensor
from gen.reference_field import field_like

PLACES_A_BLOCK = 4  # a side: neighbours are alike, and are drawn together


@dataclass(frozen=True)
class Cosines:
    """Of N places of an image: `own` (N,) to their conditions, `others` to those of other places.

    The second are means; `blocks` names the part of the image that each place lies in.
    """

    own: NDArray[np.float64]
    others: NDArray[np.float64]
    blocks: list[str]


@dataclass(frozen=True)
class Similarity:
    """Mean cosines of an image to its condition, with those that it lies between.

    Args:
        own: of each place to the condition there.
        others: of each place to the conditions of the image's other places.
        gap: the first less the second.
        reference: of the reference image to its own field, as `own`.
    """

    own: Estimate
    others: Estimate
    gap: Estimate
    reference: Estimate


def field_of(view: View, encoder: Encoder, patch_size: int) -> EmbeddingField:
    """The field of a reference image, as a model with patches of that size is given it."""
    process = field_like(view.read, view.height, view.width, patch_size)
    return run(process, {"embedder": encoder.embed}, encoder.batch_size)


def cosines(view: View, field: EmbeddingField, encoder: Encoder, patch_size: int) -> Cosines:
    """Cosines of an image's patches, side by side, to the field stretched over the image.

    A band of the image is in memory, and an embedding a patch.

    Raises:
        InvalidInput: the image holds fewer than two patches.
    """
    seen, centres, blocks = [], [], []
    side = PLACES_A_BLOCK * patch_size
    for top, lefts, windows in bands(view, patch_size, patch_size):
        seen.append(embed(encoder, to_tensor(windows)))
        centres += [(top + patch_size / 2, left + patch_size / 2) for left in lefts]
        blocks += [f"{view.name}\n{top // side}\n{left // side}" for left in lefts]
    if len(centres) < 2:
        raise InvalidInput(
            f"patch_size is {patch_size}, but {view.name} has {view.height} x {view.width} pixels,"
            " which hold fewer than two patches; give a larger image"
        )
    wanted = field.stretched(view.height, view.width).at(torch.tensor(centres))
    return Cosines(*cosines_between(torch.cat(seen), wanted), blocks)


def cosines_between(
    seen: Tensor, wanted: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each of N rows (N, D) of unit length: to its own row, and the mean to all other rows."""
    seen, wanted = seen.double(), wanted.double()
    own = (seen * wanted).sum(1)
    others = (seen @ wanted.sum(0) - own) / (len(seen) - 1)
    return own.numpy(), others.numpy()


def similarity(images: Sequence[Cosines], reference: Cosines, seed: int = 0) -> Similarity:
    """Means over the places of all images, with intervals over draws of blocks.

    Raises:
        InvalidInput: the images, or the reference, hold fewer than four blocks of places.
    """
    own, others = (
        np.concatenate([getattr(each, name) for each in images]) for name in ("own", "others")
    )
    # an image may be there twice, under one name
    blocks = [f"{number}\n{name}" for number, each in enumerate(images) for name in each.blocks]
    return Similarity(
        bootstrap_mean(own, blocks, seed=seed),
        bootstrap_mean(others, blocks, seed=seed),
        bootstrap_gap(own, others, blocks, blocks, seed=seed),
        bootstrap_mean(reference.own, reference.blocks, seed=seed),
    )
