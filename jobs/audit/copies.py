"""Copies: the nearest training image of each synthetic one, judged by what is usual."""

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.calibration import Calibration, calibrate, flag, least_rate
from gen.metrics.copies import Matches
from jobs.audit.schema import Copies, Interval, Model, Omitted, Pair, Planted
from jobs.audit.search import RATES, Search
from jobs.audit.sets import ImageSet, Inputs
from jobs.audit.stages import Stages

NUM_PAIRS = 12
NUM_BINS = 40
TRIED = (
    "nearest images by the encoder's features, as they are and mirrored, and by coarse structure;"
    " each laid over the image with shifts up to 6 %, mirroring, crops down to 90 % and any"
    " brightness and contrast"
)


class Searched(Model):
    """The section, and which synthetic and which held-out real images were flagged."""

    copies: Copies | Omitted
    synthetic: list[bool]
    real: list[bool | None]


def copies(inputs: Inputs, stages: Stages, num_planted: int = 200) -> Searched:
    """Search for copies of training images; where none are named, of the real ones.

    A threshold needs real images of patients that were not trained on: the real set without them,
    or, where it is itself searched, each image among those of other patients.
    """
    own = inputs.train is None
    search = Search(
        inputs.real if inputs.train is None else inputs.train,
        inputs.encoder, inputs.cache, stages, inputs.bars, inputs.seed,
    )  # fmt: skip
    trained_on = set() if own else set(search.searched.patients)
    strangers = [row for row, name in enumerate(inputs.real.patients) if name not in trained_on]
    _tell(inputs, own, len(inputs.real) - len(strangers))
    held_out = inputs.real.part(strangers)
    if len(set(held_out.patients)) < 2 * (1 / RATES[-1] - 1):
        why = (
            f"the real set has {len(set(held_out.patients))} patients that were not trained on,"
            " but a threshold needs 18 and better 200; name real images of others with --real"
        )
        return _omitted(inputs, why)
    real = search.matches("real", held_out, of_patients=own)
    calibration = _calibrate(inputs, real, held_out.patients, sorted(trained_on))
    if isinstance(calibration, Omitted):
        return _omitted(inputs, calibration.omitted)
    found = search.matches("synthetic", inputs.synthetic, of_patients=False)
    judged = flag(found, calibration)
    names = [item.name for item in inputs.synthetic.items]
    section = Copies(
        flagged=[name for name, hit in zip(names, judged.flagged, strict=True) if hit],
        rate=Interval.of(judged.rate),
        floor=Interval.of(judged.floor),
        threshold=Interval.of(calibration.threshold),
        false_alarm_rate=calibration.false_alarm_rate,
        held_out=calibration.num_images,
        searched="real" if own else "train",
        tried=TRIED,
        planted=_planted(search, calibration, num_planted, inputs),
        pairs=_pairs(names, found, search.searched),
        histogram=_histogram(found.scores, real.scores),
    )
    passed: list[bool | None] = [None] * len(inputs.real)
    for row, hit in zip(strangers, flag(real, calibration).flagged, strict=True):
        passed[row] = bool(hit)
    return Searched(copies=section, synthetic=judged.flagged.tolist(), real=passed)


def _tell(inputs: Inputs, own: bool, known: int) -> None:
    if own:
        inputs.omissions.append(
            "copies: no training set was named (--train), so the real set was searched"
        )
    if known:
        inputs.omissions.append(
            f"copies: {known} real images are of patients that were trained on and set no threshold"
        )


def _omitted(inputs: Inputs, why: str) -> Searched:
    return Searched(
        copies=Omitted(omitted=why),
        synthetic=[False] * len(inputs.synthetic),
        real=[None] * len(inputs.real),
    )


def _calibrate(
    inputs: Inputs, real: Matches, patients: list[str], trained_on: list[str]
) -> Calibration | Omitted:
    def at(rate: float) -> Calibration:
        return calibrate(real, patients, trained_on, rate, inputs.seed)

    try:
        calibration = least_rate(at, RATES)
    except InvalidInput as error:
        return Omitted(omitted=str(error))
    if calibration.false_alarm_rate > RATES[0]:
        inputs.omissions.append(
            f"copies: {len(patients)} held-out images are too few for false alarms of"
            f" {RATES[0]:.0%}; the threshold allows {calibration.false_alarm_rate:.0%}"
        )
    return calibration


def _planted(
    search: Search, calibration: Calibration, count: int, inputs: Inputs
) -> dict[str, Planted]:
    """Recall of copies of searched images, slipped in for the purpose."""
    if count == 0:
        inputs.omissions.append("copies: none were planted, so it is not known how many are missed")
        return {}
    return search.planted(calibration, count)


def _pairs(names: list[str], found: Matches, searched: ImageSet) -> list[Pair]:
    best = np.argsort(-found.scores, kind="stable")[:NUM_PAIRS]
    return [
        Pair(
            synthetic=names[row],
            training=searched.items[found.rows[row]].name,
            similarity=float(found.scores[row]),
        )
        for row in best
        if found.rows[row] >= 0
    ]


def _histogram(synthetic: NDArray[np.float64], real: NDArray[np.float64]) -> dict[str, list[float]]:
    both = np.concatenate([synthetic, real])
    edges = np.linspace(both.min(), both.max() + 1e-6, NUM_BINS + 1)
    counts = {name: np.histogram(each, edges, density=True)[0].tolist()
              for name, each in (("synthetic", synthetic), ("real", real))}  # fmt: skip
    return {"edges": edges.tolist(), **counts}
