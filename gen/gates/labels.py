"""Does it show what it was made to show? A classifier that was trained on real images must agree.

Each finding has its own threshold, which a stated share of the real images that show it passes, for
probabilities of rare findings are low whatever is shown. Where the finding is easily told, a lower
one does: it still stops that share of images without the finding, and forgives images of another
hospital, of which a classifier is less sure. A finding that the classifier does not
know, or cannot tell, or that too few real images show, is not judged, and the verdict says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from gen.data.captions import PHRASES, Labels
from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.pixels import pixels_of
from gen.metrics.alignment import Classifier, auroc
from gen.metrics.calibration import conformal_quantile, rate_of
from gen.metrics.intervals import Estimate, disjoint_halves
from gen.models.cxr_classifier import statement_table
from gen.types import Component, ModelCall, Process

NETWORK = "gates.classifier"
CHILD = "child"  # as `Subject.group["age_group"]` has it
CHILDREN, ADULTS, EVERYONE = "children", "adults", "everyone"

Table = NDArray[np.floating]


class FindingThreshold(BaseModel):
    """Of one finding among "everyone", "children" or "adults".

    Args:
        threshold: the probability that an image which shall show it must reach.
        passes_with: the share of images with the finding that reach it.
        num_shown, num_not_shown: real images it was found on.
        auroc: how well the classifier tells them apart.
        passes_without: the share of images without the finding that reach it all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    finding: str
    among: str
    threshold: float
    num_shown: int
    num_not_shown: int
    auroc: Estimate
    passes_with: Estimate
    passes_without: Estimate


class LabelsCalibration(BaseModel):
    """Thresholds, what is not judged and why, and the rate at which real images are refused.

    `floor` is of images each judged by thresholds that other patients set, for all its findings at
    once; None if there are too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    classifier: str
    true_positive_rate: float
    num_images: int
    judged: tuple[FindingThreshold, ...]
    unjudged: dict[str, str]
    floor: Estimate | None


def calibrate_labels(
    probabilities: Table,
    labels: Sequence[Labels],
    patients: Sequence[str],
    classifier: Classifier,
    true_positive_rate: float,
    seed: int = 0,
) -> LabelsCalibration:
    """Choose thresholds on real images that the classifier was not trained on.

    Args:
        probabilities: (N, K), the classifier's of each image.
        labels: N, what each shows.
        patients: whose they are, N.
        classifier: whose outputs the columns are.
        true_positive_rate: least share of the images that show a finding which shall pass.
        seed: of the halves that the floor is measured on.
    """
    outputs = classifier.outputs
    judged, unjudged = _thresholds(probabilities, labels, outputs, true_positive_rate)
    halves = disjoint_halves(patients, np.random.default_rng(seed))
    refused: list[bool] = []
    for rows, others in (halves, halves[::-1]):
        known, _ = _thresholds(
            probabilities[others], [labels[row] for row in others], outputs, true_positive_rate
        )
        refused += _refused(probabilities[rows], [labels[row] for row in rows], outputs, known)
    return LabelsCalibration(
        classifier=classifier.encoder.id,
        true_positive_rate=true_positive_rate,
        num_images=len(labels),
        judged=tuple(judged),
        unjudged=unjudged,
        floor=rate_of(np.array(refused)) if refused else None,
    )


def _thresholds(
    probabilities: Table, labels: Sequence[Labels], outputs: Sequence[str], rate: float
) -> tuple[list[FindingThreshold], dict[str, str]]:
    """What can be judged, and by "finding among whom" why the rest cannot."""
    stated = statement_table(labels, outputs)
    children = np.array([each.child for each in labels], bool)
    members = {CHILDREN: children, ADULTS: ~children, EVERYONE: np.ones_like(children)}
    judged: list[FindingThreshold] = []
    unjudged: dict[str, str] = {}
    for among, member in members.items():
        for finding in PHRASES:
            if finding not in outputs:
                unjudged[f"{finding} among {among}"] = "the classifier does not know it"
                continue
            column = outputs.index(finding)
            says = stated[member, column]
            scores, known = probabilities[member, column], ~np.isnan(says)
            found = _threshold(finding, among, scores[known], says[known] == 1, rate)
            if isinstance(found, str):
                unjudged[f"{finding} among {among}"] = found
            else:
                judged.append(found)
    return judged, unjudged


def _threshold(
    finding: str, among: str, scores: Table, shown: NDArray[np.bool_], rate: float
) -> FindingThreshold | str:
    """The threshold, or why there is none."""
    positive, negative = scores[shown], scores[~shown]
    if not len(positive) or not len(negative):
        return f"{len(positive)} held-out images show it and {len(negative)} do not"
    try:
        threshold = min(
            -conformal_quantile(-positive, 1 - rate), conformal_quantile(negative, 1 - rate)
        )
    except InvalidInput:
        counts = f"{len(positive)} held-out images show it, {len(negative)} do not"
        return f"{counts}: too few for a rate of {rate:g}"
    area = auroc(scores, shown)
    if area.low <= 0.5:
        return f"the classifier cannot tell it: its AUROC is {area.value:.2f}, from {area.low:.2f}"
    return FindingThreshold(
        finding=finding,
        among=among,
        threshold=threshold,
        num_shown=len(positive),
        num_not_shown=len(negative),
        auroc=area,
        passes_with=rate_of(positive >= threshold),
        passes_without=rate_of(negative >= threshold),
    )


def _refused(
    probabilities: Table,
    labels: Sequence[Labels],
    outputs: Sequence[str],
    thresholds: Sequence[FindingThreshold],
) -> list[bool]:
    """Whether each image that can be judged fails one of its own findings."""
    refused = []
    for row, each in zip(probabilities, labels, strict=True):
        shortfall = _least(row, each.findings, _among(each.child), outputs, thresholds)
        if shortfall is not None:
            refused.append(not shortfall.passed)
    return refused


@dataclass(frozen=True)
class _Reached:
    """The finding whose probability is lowest for its threshold."""

    probability: float
    threshold: FindingThreshold

    @property
    def passed(self) -> bool:
        return self.probability >= self.threshold.threshold

    @property
    def share(self) -> float:
        return self.probability / max(self.threshold.threshold, 1e-12)


def _least(
    probabilities: Table,
    findings: Sequence[str],
    among: str,
    outputs: Sequence[str],
    thresholds: Sequence[FindingThreshold],
) -> _Reached | None:
    """None if no finding is judged."""
    known = {each.finding: each for each in thresholds if each.among == among}
    reached = [
        _Reached(float(probabilities[outputs.index(name)]), known[name])
        for name in findings
        if name in known
    ]
    return min(reached, key=lambda each: each.share, default=None)


def _among(child: bool | None) -> str:
    return EVERYONE if child is None else CHILDREN if child else ADULTS


class LabelsGate:
    """Refuses what the classifier does not see the asked findings in.

    Findings are judged among children or adults as `Subject.group["age_group"]` says ("child",
    "adult" or an age), among everyone if it says nothing. The score is the probability of the
    finding that is lowest for its threshold.

    Raises:
        InvalidInput: the calibration is of another classifier.
    """

    name = "labels"

    def __init__(self, classifier: Classifier, calibration: LabelsCalibration) -> None:
        if classifier.encoder.id != calibration.classifier:
            raise InvalidInput(
                f"classifier is {classifier.encoder.id}, but thresholds are of"
                f" {calibration.classifier}; calibrate anew"
            )
        self.classifier, self.calibration = classifier, calibration
        self.networks: Mapping[str, Component] = {NETWORK: classifier.encoder.encode}

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        """See `gen.gates.gate.Gate`."""
        age = about.group.get("age_group")
        among = _among(None if age is None else age == CHILD)
        thresholds = self.calibration.judged
        known = {each.finding for each in thresholds if each.among == among}
        unjudged = tuple(name for name in about.labels if name not in known)
        if len(unjudged) == len(about.labels):
            return Verdict(self.name, True, None, None, None, unjudged)
        encoder = self.classifier.encoder
        prepared = torch.from_numpy(encoder.prepare(pixels_of(image)))[None, None]
        answer = yield ModelCall(NETWORK, (prepared,))
        row = answer[0].double().cpu().numpy()
        found = _least(row, about.labels, among, self.classifier.outputs, thresholds)
        assert found is not None  # one is known
        line = found.threshold.threshold
        reason = (
            f"{found.threshold.finding} not seen: probability {found.probability:.3f};"
            f" {found.threshold.passes_with.value:.0%} of real images that show it reach {line:.3f}"
        )
        told = None if found.passed else reason
        return Verdict(self.name, found.passed, found.probability, line, told, unjudged)
