"""Operating points of anomaly maps, from healthy pictures alone.

A threshold that a sick picture has had a part in would promise what it cannot keep elsewhere.
"""

import decimal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from gen.errors import InvalidInput

if TYPE_CHECKING:  # scipy is imported when maps are there, not where methods are named
    from gen.anomaly.regions import Map

MethodName = Literal["autopaint", "patchwise", "autoddpm", "thor", "single_step"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
CALIBRATE = "medphantom anomaly calibrate"
HEALTHY_PROMPT = "Frontal chest X-ray. Findings: no acute finding."
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SUSPICIOUS = 0.02  # share of healthy pixels that a second look may be taken at


class OperatingPoints(BaseModel):
    """Of one method: thresholds of its cleaned maps, each with its share of false alarms.

    `pictures` are of healthy pictures in which anything is marked, `pixels` of the pixels of their
    bodies. `suspicious` is where `autopaint` paints. All rest on `num_images` healthy pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_images: int = Field(ge=1)
    suspicious: float | None = None
    pictures: dict[str, float] = Field(min_length=1)
    pixels: dict[str, float]


class AnomalyCalibration(BaseModel):
    """Of one model: `calibration["anomaly"]` of its card."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str
    data: str = Field(description="Which healthy pictures")
    methods: dict[MethodName, OperatingPoints]

    @property
    def rates(self) -> dict[MethodName, tuple[float, float]]:
        """Lowest and highest share of false alarms whose threshold is known, by method."""
        known = {
            name: [float(rate) for rate in each.pictures] for name, each in self.methods.items()
        }
        return {name: (min(rates), max(rates)) for name, rates in known.items() if rates}

    def threshold(self, method: MethodName, false_positive_rate: float) -> float:
        """What a method's map must exceed, for a share of healthy pictures to show anything.

        Between the rates that are known it is interpolated.

        Raises:
            InvalidInput: the method was not calibrated, or the rate lies outside those known.
        """
        points = self.methods.get(method)
        if points is None:
            raise InvalidInput(
                f"method is {method!r}, for which this model has no thresholds, but for:"
                f" {', '.join(self.methods) or 'none'}; find them with {CALIBRATE}, or give a"
                " threshold"
            )
        rates = sorted(float(rate) for rate in points.pictures)
        if not rates[0] <= false_positive_rate <= rates[-1]:
            raise InvalidInput(
                f"threshold_fpr is {false_positive_rate}, but {points.num_images} healthy pictures"
                f" tell thresholds of {rates[0]} to {rates[-1]}; choose a rate between"
            )
        known = {float(rate): threshold for rate, threshold in points.pictures.items()}
        return float(np.interp(false_positive_rate, rates, [known[rate] for rate in rates]))


def operating_points(maps: "Sequence[Map]", suspicious: float | None = None) -> OperatingPoints:
    """Thresholds from the cleaned maps (S, S) of healthy pictures, which are 0 beside the bodies.

    Rates that the number of pictures cannot tell, below one picture, are left out.

    Raises:
        InvalidInput: there are fewer than two pictures, or they show nothing.
    """
    from gen.anomaly.regions import lowest_unmarked

    if len(maps) < 2:
        raise InvalidInput(
            f"there are {len(maps)} healthy pictures, but thresholds need at least 2; give more"
        )
    highest = np.array([lowest_unmarked(each) for each in maps])
    pixels = np.concatenate([each[each > 0] for each in maps])
    if not len(pixels):
        raise InvalidInput("the maps are 0 everywhere, but must tell a body; give chest X-rays")
    rates = [rate for rate in RATES if rate * len(maps) >= 1]
    return OperatingPoints(
        num_images=len(maps),
        suspicious=suspicious,
        pictures={f"{rate:g}": _quantile(highest, 1 - rate) for rate in rates},
        pixels={f"{rate:g}": _quantile(pixels, 1 - rate) for rate in RATES},
    )


def _quantile(values: Any, share: float) -> float:
    """From above, in five digits: of the values, at most 1 - `share` lie over it."""
    upwards = decimal.Context(prec=5, rounding=decimal.ROUND_CEILING)
    return float(upwards.create_decimal(float(np.quantile(values, share, method="higher"))))


def calibration_in(kept: Mapping[str, Any]) -> AnomalyCalibration | None:
    """Of `calibration` of a model's card; None if it says nothing of anomalies."""
    found = kept.get("anomaly")
    return None if found is None else AnomalyCalibration.model_validate(found)


def check_anomaly_method(name: str) -> MethodName:
    """The method of that name.

    Raises:
        InvalidInput: there is none.
    """
    found = next((each for each in METHODS if each == name), None)
    if found is None:
        raise InvalidInput(f"method is {name!r}, but must be one of: {', '.join(METHODS)}")
    return found
