"""Masks of samples as arrays, and the number that each label has in a data set of masks."""

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.samples import MASK, Sample
from gen.errors import InvalidInput

UNNAMED = "lesion"  # what a mask shows where no label says it


def mask_of(sample: Sample) -> NDArray[np.bool_] | None:
    """(H, W), True on the label; None if the sample has no mask."""
    if MASK not in sample.files:
        return None
    found: NDArray[np.bool_] = (
        np.asarray(Image.open(io.BytesIO(sample.files[MASK]), formats=["PNG"])) > 0
    )
    return found


def shown_by(sample: Sample) -> str:
    """The label that a sample's mask shows: its first."""
    return next(iter(sample.meta.get("labels") or []), UNNAMED)


def numbers_of(samples: Iterable[Sample]) -> dict[str, int]:
    """Label -> number from 1, in the order of the alphabet; 0 is background.

    Raises:
        InvalidInput: no sample has a mask.
    """
    names = sorted({shown_by(each) for each in samples if MASK in each.files})
    if not names:
        raise InvalidInput(
            "no sample has a mask, but this format is of masks; make samples by the operations "
            "insert or remove, or export to imagefolder, webdataset, parquet or monai"
        )
    return {name: number for number, name in enumerate(names, 1)}
