"""Several figures of two sets of features at once, each beside its real-versus-real floor.

As `gen.metrics.intervals.against_floor`, but what each draw gave is kept, so that groups of images
can be compared with one another, each above its own floor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.intervals import Estimate, Features, estimate, halvings
from gen.metrics.side_by_side import side_by_side

Figures = Mapping[str, float]
Measure = Callable[[Features, Features], Figures]
"""(features of images to judge (N, D), of real images (N, D)) -> figures by name."""

MIN_IMAGES = 16  # of each set in a draw; with fewer, figures are noise


@dataclass(frozen=True)
class BesideFloor:
    """One figure of generated images and of real ones, with what each draw gave, in one order."""

    draws: NDArray[np.float64]
    floor_draws: NDArray[np.float64]

    @property
    def value(self) -> Estimate:
        """Of generated images."""
        return estimate(self.draws)

    @property
    def floor(self) -> Estimate:
        """Of real images of other patients."""
        return estimate(self.floor_draws)

    @property
    def excess(self) -> NDArray[np.float64]:
        """What each draw lies above its floor; groups of any size compare by it."""
        return self.draws - self.floor_draws


@dataclass(frozen=True)
class Comparison:
    """Figures by name, from sets of `size` images."""

    size: int
    figures: dict[str, BesideFloor]


def compare(
    generated: Features,
    real: Features,
    patients: Sequence[str],
    measure: Measure,
    num_draws: int = 40,
    seed: int = 0,
    max_size: int = 2500,
) -> Comparison:
    """Measure generated against real images, and real ones against those of other patients.

    The intervals are those of `gen.metrics.intervals.against_floor`.

    Args:
        generated: (N, D); half of them in each draw.
        real: (M, D).
        patients: whose image each real one is; the halves share none.
        measure: called twice a draw, in several threads.
        num_draws: halvings.
        seed: of the halvings. The order of the images changes nothing.
        max_size: images of each set in a draw, for distances of all pairs take their square.

    Raises:
        InvalidInput: a draw would hold fewer than `MIN_IMAGES` images, or see `halvings`.
    """

    def draw(sets: tuple[Features, Features, Features]) -> tuple[Figures, Figures, int]:
        half, left, right = sets
        if len(half) < MIN_IMAGES:
            raise InvalidInput(
                f"there are {len(generated)} generated images and {len(real)} real ones of"
                f" {len(set(patients))} patients, of which a draw uses {len(half)}; it needs"
                f" {MIN_IMAGES}"
            )
        return measure(half, right), measure(left, right), len(half)

    with side_by_side() as pool:
        found = pool.map(draw, halvings(generated, real, patients, num_draws, seed, max_size))
        draws, floors, sizes = zip(*found, strict=True)
    return Comparison(
        round(np.mean(sizes)),
        {
            name: BesideFloor(
                np.array([each[name] for each in draws]), np.array([each[name] for each in floors])
            )
            for name in draws[0]
        },
    )


@dataclass(frozen=True)
class Gap:
    """How much worse the worst served group is than the best, above the floors of both."""

    best: str
    worst: str
    gap: Estimate


def widest_gap(groups: Mapping[str, BesideFloor], higher_is_better: bool) -> Gap:
    """The groups whose excess over their floor differs most in the mean of the draws.

    Raises:
        InvalidInput: there are fewer than two groups.
    """
    if len(groups) < 2:
        raise InvalidInput(
            f"there is only the group {', '.join(groups) or '(none)'}; a gap is of two"
        )
    ranked = sorted(groups, key=lambda name: groups[name].excess.mean(), reverse=higher_is_better)
    best, worst = ranked[0], ranked[-1]
    # signed, or an interval could never reach down to no gap at all
    sign = -1 if higher_is_better else 1
    return Gap(best, worst, estimate(sign * (groups[worst].excess - groups[best].excess)))
