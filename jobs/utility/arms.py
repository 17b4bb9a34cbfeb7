"""The arms of the comparison: what each kind of classifier is shown, in as many steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when something is trained
    from gen.training.utility_classifier import Course, Pool

REAL, SYNTHETIC, MIXED, CLASSICAL, BOTH, PRETRAINED = (
    "real", "synthetic", "real+synthetic", "real+classical", "real+classical+synthetic",
    "synthetic-then-real",
)  # fmt: skip
DEFAULT_ARMS = (REAL, SYNTHETIC, MIXED, CLASSICAL, PRETRAINED)
CLASSICAL_ARMS = (CLASSICAL, BOTH)
NAMES = {
    REAL: "real only",
    SYNTHETIC: "synthetic only",
    MIXED: "real and synthetic in each batch",
    CLASSICAL: "real, transformed as usual",
    BOTH: "real, transformed as usual, and synthetic",
    PRETRAINED: "synthetic first, then real",
}


@dataclass(frozen=True)
class Material:
    """What a classifier may be shown: a share of the real images, plain and transformed, and the
    synthetic ones."""

    real: "Pool"
    classical: "Pool"
    synthetic: "Pool"
    synthetic_share: float
    pretraining_share: float


def _alone(pool: "Pool", share: float = 1.0) -> "Course":
    from gen.training.utility_classifier import Course

    return Course(((pool, 1.0),), share)


def _beside(real: "Pool", material: Material) -> "Course":
    from gen.training.utility_classifier import Course

    share = material.synthetic_share
    return Course(((real, 1 - share), (material.synthetic, share)))


ARMS: "dict[str, Callable[[Material], list[Course]]]" = {
    REAL: lambda m: [_alone(m.real)],
    SYNTHETIC: lambda m: [_alone(m.synthetic)],
    MIXED: lambda m: [_beside(m.real, m)],
    CLASSICAL: lambda m: [_alone(m.classical)],
    BOTH: lambda m: [_beside(m.classical, m)],
    PRETRAINED: lambda m: [
        _alone(m.synthetic, m.pretraining_share),
        _alone(m.real, 1 - m.pretraining_share),
    ],
}
"""Name -> what it is shown, one course after the other."""
