"""What one run of `medphantom evaluate utility` measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.errors import InvalidInput
from jobs.utility.arms import ARMS, DEFAULT_ARMS, REAL


@dataclass(frozen=True)
class UtilityConfig:
    """Which images, which shares of the real ones, and who is shown what; `out` is a folder."""

    data: Path
    synthetic: Path
    out: Path
    arms: tuple[str, ...] = DEFAULT_ARMS
    fractions: tuple[float, ...] = (0.05, 0.2, 1.0)
    num_seeds: int = 5
    image_size: int = 64
    num_training_steps: int = 300
    widths: tuple[int, ...] = (8, 16, 32, 64)
    learning_rate: float | None = None  # what suits the start: from scratch, or an encoder
    encoder: str | None = None
    synthetic_share: float = 0.5
    pretraining_share: float = 0.5
    num_views: int = 2
    min_positives: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_seeds < 2:
            raise InvalidInput(f"seeds is {self.num_seeds}, but two or more tell chance; try 5")
        for name in ("synthetic_share", "pretraining_share"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)}, but must lie between 0 and 1; try 0.5"
                )

    @property
    def seeds(self) -> range:
        """Of the classifiers."""
        return range(self.seed, self.seed + self.num_seeds)


def parse_arms(names: Sequence[str]) -> tuple[str, ...]:
    """Arms in the order of `ARMS`, with `real`, which all are compared with; none means the usual.

    Raises:
        InvalidInput: one is unknown.
    """
    for name in names:
        if name not in ARMS:
            raise InvalidInput(f"arm is {name!r}, but must be one of: {', '.join(ARMS)}")
    return tuple(arm for arm in ARMS if arm in {*(names or DEFAULT_ARMS), REAL})
