"""Sensitivity: real images are harmed in known ways, to see which figure would notice.

Each harm is done to all chosen images; figures compare one half of the patients, harmed, with the
other half as it is, over several halvings. A figure moves if it moves one way only, in the same
direction in nearly all halvings; the harm would be noticed if it ends outside of the floor, where
halvings alone lead.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.metrics.alignment import auroc, load_classifier
from gen.metrics.feature_cache import encode_collection, read_thumbnails
from gen.metrics.features import features_of
from gen.metrics.fidelity import MIN_IMAGES
from gen.metrics.intervals import disjoint_halves, estimate
from gen.metrics.sensitivity import HARMS, mode_dropping, response, swap_labels
from gen.metrics.spectrum import radial_spectrum
from gen.models.cxr_classifier import statement_table
from jobs.audit.fidelity import MAX_SIZE, class_of, figures_of
from jobs.audit.schema import Harmed, Omitted, Sensitivity
from jobs.audit.sets import ImageSet, Inputs

MAX_IMAGES = 240
SIDE = 256
NUM_HALVINGS = 40
ONE_WAY = 0.999  # rank correlation, up to rounding
STRENGTHS = {
    "blur": (0.0, 0.5, 1.0, 2.0),
    "noise": (0.0, 4.0, 8.0, 16.0),
    "jpeg": (0.0, 60.0, 80.0, 95.0),
    "contrast": (0.0, 0.15, 0.3, 0.5),
    "mode dropping": (0.0, 0.5, 0.75, 0.9),
    "label swaps": (0.0, 0.1, 0.25, 0.5),
}

Draws = dict[str, NDArray[np.float64]]
"""What each halving gave, by figure."""


def sensitivity(inputs: Inputs, classifier_id: str) -> Sensitivity | Omitted:
    """Harm real images and measure them as if they were synthetic."""
    chosen = _chosen(inputs)
    if len(set(chosen.patients)) < 4 * MIN_IMAGES:
        return Omitted(
            omitted=f"{len(set(chosen.patients))} patients with files of at least 128 pixels a"
            f" side; harming real images needs {4 * MIN_IMAGES}"
        )
    images = read_thumbnails(chosen.items, SIDE).images
    clean = _described(images, inputs)
    report = inputs.bars.bar("harming real images")
    harms: dict[str, Harmed] = {}
    for done, (name, strengths) in enumerate(STRENGTHS.items()):
        if name == "label swaps":
            swapped = _swapped(inputs, classifier_id, strengths)
            harms |= {name: swapped} if swapped is not None else {}
        else:
            harms[name] = _harmed(name, strengths, images, clean, chosen, inputs)
        report(done + 1, len(STRENGTHS))
    return Sensitivity(images=len(images), harms=harms)


def _chosen(inputs: Inputs) -> ImageSet:
    """Some real images, those of one class beside each other."""
    large = np.flatnonzero(inputs.real.sides >= SIDE // 2)
    drawn = np.random.default_rng(inputs.seed).permutation(large)[:MAX_IMAGES]
    labels = inputs.real.labels
    names = {row: "" if (each := labels[row]) is None else class_of(each) for row in drawn}
    return inputs.real.part(sorted(drawn, key=lambda row: (names[row], row)))


def _described(images: Tensor, inputs: Inputs) -> NDArray[np.float64]:
    """Features (N, D) and, behind them, the spectrum's 16 bands of images."""
    return np.hstack([features_of(images, inputs.encoder), radial_spectrum(images)])


def _harmed(
    name: str,
    strengths: tuple[float, ...],
    images: Tensor,
    clean: NDArray[np.float64],
    chosen: ImageSet,
    inputs: Inputs,
) -> Harmed:
    found: list[Draws] = []
    for strength in strengths:
        if name == "mode dropping":  # of the half that is judged, and of each anew
            keep = partial(_kept, strength=strength)
            found.append(_draws(clean, clean, chosen, inputs, keep))
        else:
            bad = _described(HARMS[name](images, strength, inputs.seed), inputs)
            found.append(_draws(bad, clean, chosen, inputs))
    return _answers(strengths, found)


def _kept(rows: NDArray[np.intp], strength: float) -> NDArray[np.intp]:
    return mode_dropping(torch.from_numpy(np.sort(rows)), strength).numpy()


def _draws(
    bad: NDArray[np.float64],
    clean: NDArray[np.float64],
    chosen: ImageSet,
    inputs: Inputs,
    keep: Callable[[NDArray[np.intp]], NDArray[np.intp]] = lambda rows: rows,
) -> Draws:
    rng = np.random.default_rng(inputs.seed)
    draws = []
    width = clean.shape[1] - 16
    for _ in range(NUM_HALVINGS):
        left, right = disjoint_halves(chosen.patients, rng)
        size = min(len(left), len(right), MAX_SIZE)
        judged, real = bad[keep(left[:size])], clean[right[:size]]
        detail = np.log2(judged[:, width:].mean(0) / real[:, width:].mean(0))
        draws.append(
            {
                **figures_of(judged[:, :width], real[:, :width]),
                "detail": float(np.abs(detail).mean()),
            }
        )
    return {name: np.array([each[name] for each in draws]) for name in draws[0]}


def _answers(strengths: tuple[float, ...], found: list[Draws]) -> Harmed:
    figures = {name: [float(each[name].mean()) for each in found] for name in found[0]}
    answers = {name: response(strengths, values) for name, values in figures.items()}
    moves = [
        name
        for name, answer in answers.items()
        if abs(answer.monotonic) > ONE_WAY
        and not _holds(found[-1][name] - found[0][name], 0)  # the same halvings: they cancel
    ]
    return Harmed(
        strengths=list(strengths),
        figures=figures,
        monotonic={name: each.monotonic for name, each in answers.items()},
        moves=moves,
        noticed=[name for name in moves if not _holds(found[0][name], figures[name][-1])],
    )


def _holds(draws: NDArray[np.float64], value: float) -> bool:
    interval = estimate(draws)
    return interval.low <= value <= interval.high


def _swapped(inputs: Inputs, classifier_id: str, strengths: tuple[float, ...]) -> Harmed | None:
    """The area under the curve of the output that most real images speak of, labels swapped."""
    judge = load_classifier(classifier_id)
    rows = [row for row, each in enumerate(inputs.real.labels) if each is not None]
    labels = [each for each in inputs.real.labels if each is not None]
    table = statement_table(labels, judge.outputs)
    fewest = np.minimum((table == 1).sum(0), (table == 0).sum(0))
    if not len(fewest) or fewest.max() < MIN_IMAGES:
        return None
    column = int(fewest.argmax())
    scores = encode_collection(inputs.real.part(rows).items, judge.encoder, inputs.cache).features
    known = ~np.isnan(table[:, column])
    shown = table[known, column] == 1
    areas = [auroc(scores[known, column], swap_labels(shown, s, inputs.seed)) for s in strengths]
    values = [each.value for each in areas]
    answer = response(strengths, values)
    moved = ["auroc"] if abs(answer.monotonic) > ONE_WAY and values[-1] < areas[0].low else []
    return Harmed(
        strengths=list(strengths),
        figures={"auroc": values},
        monotonic={"auroc": answer.monotonic},
        moves=moved,
        noticed=moved,
    )
