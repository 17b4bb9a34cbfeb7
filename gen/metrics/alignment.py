"""Does an image show what was asked? A classifier trained on real images judges.

A `gen.models.cxr_classifier.CXRClassifier` knows each finding, view, sex and age. Its own error on
real images stands beside what it says of generated ones.

Findings, view, sex and age are judged among children and among adults apart: every judge tells a
child from an adult, and would seem right about pneumonia by age alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from gen.data.captions import PARAPHRASES, PHRASES, Labels
from gen.encoders.encoder import Encoder
from gen.encoders.loading import probabilities_of
from gen.errors import InvalidInput
from gen.metrics.intervals import LEVELS, Estimate
from gen.models.cxr_classifier import CXRClassifier, statement_table
from gen.store.catalogue import resolve
from gen.store.loading import load_components


def auroc(
    scores: NDArray[np.floating],
    labels: NDArray[np.bool_],
    num_resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve with a bootstrap interval, resampled within each class.

    Raises:
        InvalidInput: one of the classes is missing.
    """
    _check_classes(labels)
    positive, negative = scores[labels], np.sort(scores[~labels])
    below = np.searchsorted(negative, positive)
    not_above = np.searchsorted(negative, positive, side="right")
    rng = np.random.default_rng(seed)

    def area(positives: NDArray[np.intp], negatives: NDArray[np.intp]) -> float:
        """With each image counted so often; a tie counts as half (Mann and Whitney 1947)."""
        reached = np.concatenate([[0], negatives.cumsum()])
        pairs = positives @ (reached[below] + reached[not_above])
        return float(pairs / (2 * positives.sum() * negatives.sum()))

    def drawn(count: int) -> NDArray[np.intp]:
        return np.bincount(rng.integers(count, size=count), minlength=count)

    draws = [area(drawn(len(positive)), drawn(len(negative))) for _ in range(num_resamples)]
    low, high = np.quantile(draws, LEVELS)
    ones = (np.ones(len(each), np.intp) for each in (positive, negative))
    return Estimate(area(*ones), float(low), float(high))


@dataclass(frozen=True)
class Classifier:
    """Judges images: `encoder` answers probabilities (N, K) of the K `outputs`."""

    outputs: tuple[str, ...]
    encoder: Encoder


def load_classifier(model_id: str | Path, device: str | None = None) -> Classifier:
    """A trained classifier by its id or folder.

    Raises:
        InvalidInput: the model is no classifier.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    network = load_components(model_id).get("model")
    if not isinstance(network, CXRClassifier):
        raise InvalidInput(
            f"classifier is {str(model_id)!r}, but must be a CXRClassifier; make one with"
            " `medphantom train finding-classifier`"
        )
    encoder = probabilities_of(network.eval(), resolve(model_id), device)
    return Classifier(tuple(network.config.outputs), encoder)


@dataclass(frozen=True)
class Separation:
    """How well one output tells images that shall show it from images that shall not.

    `among` is "everyone", "children" or "adults"; `auroc` is None if one of the two is missing. Its
    interval resamples within each, so it says too little where one of them has a few images only.
    """

    output: str
    among: str
    num_shown: int
    num_not_shown: int
    auroc: Estimate | None


def separations(
    probabilities: NDArray[np.floating], labels: Sequence[Labels], outputs: Sequence[str]
) -> list[Separation]:
    """Every output's separation of images by what their labels, or their prompts, say.

    Args:
        probabilities: (N, K), the classifier's of each image.
        labels: N of real images, or of prompts by `gen.data.prompt_labels.labels_in`. An image
            whose labels do not speak of an output is not counted there.
        outputs: the K names; an output nobody speaks of is left out.
    """
    stated = statement_table(labels, outputs)
    found = []
    for column, output in enumerate(outputs):
        everyone = {"everyone": np.ones(len(labels), bool)}
        for among, member in (everyone if output == "child" else _by_age(labels)).items():
            known = member & ~np.isnan(stated[:, column])
            if known.any():
                shown = stated[known, column] == 1
                found.append(_separation(output, among, probabilities[known, column], shown))
    return found


def _by_age(labels: Sequence[Labels]) -> dict[str, NDArray[np.bool_]]:
    children = np.array([each.child for each in labels], bool)
    return {"children": children, "adults": ~children}


def _separation(
    output: str, among: str, scores: NDArray[np.floating], shown: NDArray[np.bool_]
) -> Separation:
    num_shown = int(shown.sum())
    area = auroc(scores, shown) if 0 < num_shown < len(shown) else None
    return Separation(output, among, num_shown, len(shown) - num_shown, area)


@dataclass(frozen=True)
class Asked:
    """One output on generated images by their prompts, and on real ones by their labels."""

    generated: Separation
    real: Separation | None


def beside_real(generated: Sequence[Separation], real: Sequence[Separation]) -> list[Asked]:
    """Pair separations of generated images with the classifier's own on real images."""
    own = {(each.output, each.among): each for each in real}
    return [Asked(each, own.get((each.output, each.among))) for each in generated]


@dataclass(frozen=True)
class Confusion:
    """`mean_rank` (R, C) of output `columns[j]` among `num_asked[i]` images asked for `rows[i]`.

    0.5 is what images in general rank, 1 higher than all. A finding that is drawn as another
    ranks high in the other's column; one that nobody asked for has no row.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    num_asked: tuple[int, ...]
    mean_rank: NDArray[np.float64]


def confusion(
    probabilities: NDArray[np.floating], labels: Sequence[Labels], outputs: Sequence[str]
) -> Confusion:
    """How high images (N, K) rank in each finding, by the finding they were asked for.

    Ranks and not probabilities, since those of rare findings are low whatever is shown; among
    children and among adults apart.
    """
    columns = [i for i, name in enumerate(outputs) if name in PHRASES]
    names = tuple(outputs[i] for i in columns)
    ranks = np.empty((len(labels), len(columns)))
    for member in _by_age(labels).values():
        scores = probabilities[member][:, columns]
        ranks[member] = (rankdata(scores, axis=0) - 0.5) / max(1, len(scores))
    asked = {name: [name in each.findings for each in labels] for name in names}
    rows = tuple(name for name in names if any(asked[name]))
    means = [ranks[np.array(asked[name])].mean(0) for name in rows]
    counts = tuple(sum(asked[name]) for name in rows)
    return Confusion(rows, names, counts, np.array(means).reshape(len(rows), len(names)))


def followed(
    probabilities: NDArray[np.floating], labels: Sequence[Labels], outputs: Sequence[str]
) -> NDArray[np.float64]:
    """How high each image (N,) ranks in what it was asked for: 0.5 by chance, 1 above all others.

    The mean over its findings of ranks in (0, 1), among children and among adults apart; nan where
    no output judges what was asked for.
    """
    columns = {name: i for i, name in enumerate(outputs)}
    ranks = np.empty(probabilities.shape)
    for member in _by_age(labels).values():
        scores = probabilities[member]
        ranks[member] = (rankdata(scores, axis=0) - 0.5) / max(1, len(scores))
    asked = [[columns[name] for name in each.findings if name in columns] for each in labels]
    means = [
        row[chosen].mean() if chosen else np.nan for row, chosen in zip(ranks, asked, strict=True)
    ]
    return np.array(means)


def phrasings(
    probabilities: NDArray[np.floating],
    prompts: Sequence[str],
    labels: Sequence[Labels],
    outputs: Sequence[str],
) -> dict[str, list[Separation]]:
    """Which wording of a finding is followed: each phrase's images against those not asked.

    Args:
        probabilities: (N, K).
        prompts: N, searched for the words of `gen.data.captions`.
        labels: N, what the prompts ask for.
        outputs: the K names.

    Returns:
        By phrase, the separation of its finding among children, among adults, or both.
    """
    stated = statement_table(labels, outputs)
    found: dict[str, list[Separation]] = {}
    for column, output in enumerate(outputs):
        used = [
            phrase_in(prompt, output) if output in each.findings else None
            for prompt, each in zip(prompts, labels, strict=True)
        ]
        for phrase in sorted({each for each in used if each is not None}):
            said = np.array([each == phrase for each in used])
            for among, member in _by_age(labels).items():
                if not (said & member).any():
                    continue
                compared = member & (said | (stated[:, column] == 0))
                row = _separation(output, among, probabilities[compared, column], said[compared])
                found.setdefault(phrase, []).append(row)
    return found


def phrase_in(prompt: str, finding: str) -> str | None:
    """The longest wording of a finding in a prompt, in lower case; None if it holds none known."""
    words = (finding, *PHRASES[finding], *PARAPHRASES.get(finding, ()))
    for phrase in sorted({word.lower() for word in words}, key=len, reverse=True):
        if re.search(rf"\b{re.escape(phrase)}\b", prompt, re.IGNORECASE):
            return phrase
    return None


def _check_classes(labels: NDArray[np.bool_]) -> None:
    positive = int(np.sum(labels))
    if positive in (0, len(labels)):
        raise InvalidInput(
            f"labels hold {positive} positive and {len(labels) - positive} negative images, but an"
            " AUROC needs both; add images of the missing class"
        )
