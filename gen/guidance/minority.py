"""The minority level that is asked for, and what each sampler must be told to reach it.

A level is a quantile in [0, 1] of the minority scores of the training data: 0.9 is as rare as the
rarest tenth. A model's calibration says which strength of each sampler reaches which level, so that
a level means the same whatever the sampler.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from gen.errors import InvalidInput

MinorityMethod = Literal["boost_and_skip", "classifier", "self_guided", "prompt"]
"""What moves sampling to the rare, the cheapest first; see the files of `gen.guidance`."""

DistanceKind = Literal["encoder", "pixel", "latent"]
"""In what an image and its reconstruction are compared."""

METHODS: tuple[MinorityMethod, ...] = get_args(MinorityMethod)
CALIBRATE = "medphantom train minority-calibration"
ALL = "all"
COMMON = 0.5  # levels below push the rare away


class ScoreSettings(BaseModel):
    """What minority scores that compare have in common: see `gen.guidance.minority_score`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    distance: DistanceKind
    encoder: str | None = None
    noise_level: float = Field(gt=0, lt=1)
    num_draws: int = Field(ge=1)


class MinorityCalibration(BaseModel):
    """Of one model: `calibration["minority"]` of its card.

    `scores` are, of each kind of image (see `Labels.kind`) and of all, those of the training data
    at equally spaced quantiles from 0 to 1. `strengths` are, of each method, pairs of a level and
    the strength whose images reach it, both rising.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    score: ScoreSettings
    scores: dict[str, Annotated[tuple[float, ...], Field(min_length=2)]]
    strengths: dict[MinorityMethod, tuple[tuple[float, float], ...]]

    @field_validator("scores")
    @classmethod
    def _has_all(cls, scores: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        if ALL not in scores:
            raise ValueError(f"scores have no {ALL!r}, only {', '.join(scores) or 'nothing'}")
        return scores

    def quantile(self, score: float, kind: str = ALL) -> float:
        """The share of the training data of a kind that has a lower score; of all, if few are."""
        scores = self.scores.get(kind, self.scores[ALL])
        return float(np.interp(score, scores, np.linspace(0, 1, len(scores))))

    @property
    def levels(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest level that each method reaches."""
        return {method: (pairs[0][0], pairs[-1][0]) for method, pairs in self.strengths.items()}

    def cheapest(self, level: float) -> MinorityMethod:
        """The first of `METHODS`, which are in the order of what they cost, that reaches a level.

        Raises:
            InvalidInput: none does.
        """
        reached = self.levels
        for method in METHODS:
            if method in reached and reached[method][0] <= level <= reached[method][1]:
                return method
        raise InvalidInput(
            f"minority is {level}, which no method reaches with this model: "
            + "; ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in reached.items())
            + f"; choose a level between, or calibrate more with {CALIBRATE}"
        )

    def strength(self, method: MinorityMethod, level: float) -> float:
        """What `method` must be told to reach a level.

        Raises:
            InvalidInput: it was not calibrated, or never reached the level.
        """
        pairs = self.strengths.get(method, ())
        if not pairs:
            raise InvalidInput(
                f"minority_method is {method!r}, for which this model has no calibration, but for:"
                f" {', '.join(self.strengths) or 'none'}; make it with {CALIBRATE}"
            )
        levels, strengths = zip(*pairs, strict=True)
        if not levels[0] <= level <= levels[-1]:
            raise InvalidInput(
                f"minority is {level}, but {method} reaches {levels[0]:.2f} to {levels[-1]:.2f}"
                " with this model; choose a level between, or another method"
            )
        return float(np.interp(level, levels, strengths))


def calibration_in(kept: Mapping[str, Any]) -> MinorityCalibration | None:
    """Of `calibration` of a model's card; None if it says nothing of rarity."""
    found = kept.get("minority")
    return None if found is None else MinorityCalibration.model_validate(found)


def check_method(name: str) -> MinorityMethod:
    """The method of that name.

    Raises:
        InvalidInput: there is none.
    """
    found = next((each for each in METHODS if each == name), None)
    if found is None:
        raise InvalidInput(f"minority_method is {name!r}, but must be one of: {', '.join(METHODS)}")
    return found


def check_level(level: float, allow_common: bool) -> None:
    """Refuse what cannot be meant.

    Raises:
        InvalidInput: the level is no quantile, or below 0.5 without `allow_common`.
    """
    if not 0 <= level <= 1:
        raise InvalidInput(f"minority is {level}, but must be a quantile from 0 to 1; try 0.9")
    if level < COMMON and not allow_common:
        raise InvalidInput(
            f"minority is {level}, which pushes rare images away; choose 0.5 or more, or say that"
            " you mean it with allow_common"
        )
