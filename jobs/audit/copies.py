"""Copies: the nearest training image of each synthetic one, judged by what is usual."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.calibration import Calibration, calibrate, flag
from gen.metrics.copies import Described, Matches, TrainingIndex, index_training, match
from gen.metrics.feature_cache import encode_collection, read_thumbnails
from gen.metrics.planted import planted_recall
from jobs.audit.schema import Copies, Interval, Model, Omitted, Pair, Planted
from jobs.audit.sets import ImageSet, Inputs
from jobs.audit.stages import Stages

SIDE = 128  # of the pictures that are laid over one another, which is done at half of it
PLANTED_SIDE = 256  # copies are altered before they are made small
CHUNK = 1000  # images that a run which is cut off looks up again
RATES = (0.01, 0.02, 0.05, 0.1)  # of false alarms; the first that there are images enough for
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


class _Found(Model):
    scores: list[float]
    rows: list[int]


class _Search:
    """Looks images up in a set; the index is built when something is not yet known."""

    def __init__(self, inputs: Inputs, stages: Stages) -> None:
        self.inputs, self.stages = inputs, stages
        self.searched = inputs.real if inputs.train is None else inputs.train

    @cached_property
    def index(self) -> TrainingIndex:
        report = self.inputs.bars.bar("pictures to search among")
        thumbnails = read_thumbnails(self.searched.items, SIDE, report)
        part = self.searched.part(thumbnails.rows)
        return index_training(thumbnails.images, part.features, part.patients)

    def matches(self, what: str, images: ImageSet, *, of_patients: bool) -> Matches:
        """The best match of each image; with `of_patients`, one of another patient."""
        chunks = range(0, len(images), CHUNK)
        report = self.inputs.bars.bar(f"searching for copies of {what} images")
        found = []
        for number, start in enumerate(chunks):
            part = images.part(np.arange(start, min(start + CHUNK, len(images))))
            patients = part.patients if of_patients else None
            found.append(
                self.stages.run(
                    f"copies-{what}-{number:04d}",
                    _Found,
                    lambda part=part, patients=patients: self._look_up(part, patients),  # type: ignore[misc]
                )
            )
            report(start + len(part), len(images))
        return Matches(
            np.concatenate([each.scores for each in found]),
            np.concatenate([each.rows for each in found]).astype(np.intp),
        )

    def _look_up(self, images: ImageSet, patients: list[str] | None) -> _Found:
        flipped = encode_collection(
            images.items, self.inputs.encoder, self.inputs.cache, flipped=True
        )
        pictures = read_thumbnails(images.items, SIDE).images
        described = Described(pictures, images.features, flipped.features)
        found = match(described, self.index, patients)
        return _Found(scores=found.scores.tolist(), rows=found.rows.tolist())


def copies(inputs: Inputs, stages: Stages, num_planted: int = 200) -> Searched:
    """Search for copies of training images; where none are named, of the real ones.

    A threshold needs real images of patients that were not trained on: the real set without them,
    or, where it is itself searched, each image among those of other patients.
    """
    search = _Search(inputs, stages)
    own = inputs.train is None
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
        planted=_planted(search, calibration, num_planted),
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
    for rate in RATES:
        try:
            calibration = calibrate(real, patients, trained_on, rate, inputs.seed)
        except InvalidInput as error:
            last = error
            continue
        if rate > RATES[0]:
            inputs.omissions.append(
                f"copies: {len(patients)} held-out images are too few for false alarms of"
                f" {RATES[0]:.0%}; the threshold allows {rate:.0%}"
            )
        return calibration
    return Omitted(omitted=str(last))


def _planted(search: _Search, calibration: Calibration, count: int) -> dict[str, Planted]:
    """Recall of copies of searched images, slipped in for the purpose."""

    def plant() -> dict[str, Planted]:
        order = np.random.default_rng(search.inputs.seed).permutation(len(search.searched))
        rows = np.sort(order[:count])
        pictures = read_thumbnails(search.searched.part(rows).items, PLANTED_SIDE)
        report = search.inputs.bars.bar("searching for planted copies")
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            report(done, 7 * len(rows))

        recall = planted_recall(
            pictures.images, rows[pictures.rows].tolist(), search.index, calibration,
            search.inputs.encoder, search.inputs.seed, advance,
        )  # fmt: skip
        return {
            name: Planted(**Interval.of(each.flagged).model_dump(), images=len(pictures.rows))
            for name, each in recall.items()
        }

    if count == 0:
        search.inputs.omissions.append(
            "copies: none were planted, so it is not known how many are missed"
        )
        return {}
    return search.stages.run("copies-planted", dict[str, Planted], plant, count)


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
