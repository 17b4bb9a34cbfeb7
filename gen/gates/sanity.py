"""Are the pixels those of a picture? Finite, in range, and with usual light, contrast and detail.

What is usual is not written here: each figure has the range that it has in real training images,
and an image is refused if it leaves one of them further than real images of other patients do.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.pixels import thumbnail
from gen.metrics.calibration import Calibration, calibrate_scores
from gen.metrics.spectrum import NUM_BANDS, radial_spectrum
from gen.types import Component, Process

SIDE = 128  # that figures are taken at, since training files differ in size
# Only the unit that figures are measured in; the threshold is found on other patients' images.
LEVELS = (0.01, 0.5, 0.99)
_FAINT = 1e-9  # of an image without contrast: less than of one pixel that differs by a grey level
FIGURES = ("brightness", "contrast", *(f"detail in band {i + 1}" for i in range(NUM_BANDS)))


class SanityCalibration(BaseModel):
    """Low, middle and high of each figure in training images, and the threshold.

    The calibration is of scores (see `deviations`) of real images of other patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    usual: dict[str, tuple[float, float, float]]
    num_images: int
    calibration: Calibration


def figures_of(images: Tensor) -> NDArray[np.float64]:
    """The `FIGURES` (N, F) of images (N, 1, S, S) uint8: the mean, log contrast, log power bands.

    The bands are of equal width from the whole picture up to half the Nyquist frequency; power is
    over the picture's variance, so that the figures of contrast and of detail differ.
    """
    pixels = images.flatten(1).double() / 255
    variance = pixels.var(1, correction=0)
    power = torch.from_numpy(radial_spectrum(images))
    shape = (power / variance.clamp_min(_FAINT)[:, None]).clamp_min(_FAINT).log()
    contrast = variance.clamp_min(_FAINT).log()
    return torch.cat([pixels.mean(1)[:, None], contrast[:, None], shape], 1).numpy()


def deviations(
    figures: NDArray[np.float64], usual: Mapping[str, Sequence[float]]
) -> NDArray[np.float64]:
    """How far each figure (N, F) is from its middle: 1 is the end of its usual range."""
    low, middle, high = np.array([usual[name] for name in FIGURES]).T
    above, below = (np.maximum(each, 1e-6) for each in (high - middle, middle - low))
    deviation: NDArray[np.float64] = np.where(
        figures > middle, (figures - middle) / above, (middle - figures) / below
    )
    return deviation


def calibrate_sanity(
    training: Tensor,
    held_out: Tensor,
    patients: Sequence[str],
    false_alarm_rate: float,
    seed: int = 0,
) -> SanityCalibration:
    """Learn what is usual.

    Args:
        training: real images (M, 1, 128, 128) uint8, none enlarged from fewer pixels.
        held_out: real images (N, 1, 128, 128) uint8 of other patients, which set the threshold.
        patients: whose they are, N.
        false_alarm_rate: share of further real images that may be refused.
        seed: of the threshold's interval.

    Raises:
        InvalidInput: there are too few images.
    """
    if not len(training):
        raise InvalidInput("there is no training image of 128 pixels a side or more; give some")
    values = figures_of(training)
    ranges = np.quantile(values, LEVELS, axis=0).T.tolist()
    usual = {name: tuple(each) for name, each in zip(FIGURES, ranges, strict=True)}
    scores = deviations(figures_of(held_out), usual).max(1)
    found = calibrate_scores(scores, patients, false_alarm_rate, seed)
    return SanityCalibration(usual=usual, num_images=len(training), calibration=found)


class SanityGate:
    """Refuses what is not finite, not from 0 to 1, one grey, or unlike any real image.

    The score is that of the figure farthest from usual; it is the share of bad pixels where there
    are some, and their threshold is 0.
    """

    name = "sanity"

    def __init__(self, calibration: SanityCalibration) -> None:
        self.networks: Mapping[str, Component] = {}
        self.calibration = calibration

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        """See `gen.gates.gate.Gate`."""
        del about
        yield from ()
        bad = ~(image.isfinite() & (image >= 0) & (image <= 1))
        if bad.any():
            share = float(bad.float().mean())
            what = "not finite" if not image.isfinite().all() else "out of range"
            return Verdict(self.name, False, share, 0.0, f"{what}: {share:.1%} of the pixels")
        return self._usual(image)

    def _usual(self, image: Tensor) -> Verdict:
        deviation = deviations(figures_of(thumbnail(image, SIDE)), self.calibration.usual)[0]
        worst = int(deviation.argmax())
        score, threshold = float(deviation[worst]), self.calibration.calibration.threshold.value
        reason = None
        if image.max() == image.min():
            reason = "one grey: all pixels are the same"
        elif score > threshold:
            reason = (
                f"{FIGURES[worst]}: {score:.1f} times as far from usual as the ends of the usual"
                f" range; of other real images nearly all are within {threshold:.1f}"
            )
        return Verdict(self.name, reason is None, score, threshold, reason)
