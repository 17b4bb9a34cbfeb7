"""What the classifier does not see is refused; what it cannot judge is said to be unjudged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.captions import NORMAL, Labels
from gen.encoders.encoder import Encoder
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.labels import LabelsCalibration, LabelsGate, calibrate_labels
from gen.metrics.alignment import Classifier

OUTPUTS = (NORMAL, "Effusion", "Edema", "PA")


def toy(prepared: Tensor) -> Tensor:
    """Probabilities: a bright left half is Effusion, what is dark is normal; Edema is a coin."""
    left = prepared[..., :4].mean((1, 2, 3))
    coin = (prepared.flatten(1).sum(1) * 1e4).frac().abs()
    return torch.stack([1 - left, left, coin, coin], 1)


TOY = Classifier(OUTPUTS, Encoder("toy@0", 8, 8, toy, "cpu"))


def image(level: float) -> Tensor:
    picture = torch.zeros(1, 1, 8, 8)
    picture[..., :4] = level
    return picture


def real(count: int = 400) -> tuple[np.ndarray, list[Labels], list[str]]:
    """Probabilities of adults: effusions have bright left halves, most of them."""
    rng = np.random.default_rng(0)
    sick = rng.random(count) < 0.5
    levels = np.where(sick, rng.beta(6, 2, count), rng.beta(2, 6, count))
    images = torch.cat([image(level) for level in levels])
    labels = [Labels(("Effusion",) if each else (NORMAL,)) for each in sick]
    for row in range(0, 40, 8):  # five images, too few
        labels[row] = Labels((*{*labels[row].findings} - {NORMAL}, "Edema"))
    return toy(images).double().numpy(), labels, [f"p{i}" for i in range(count)]


@pytest.fixture(scope="module")
def calibration() -> LabelsCalibration:
    return calibrate_labels(*real(), TOY, 0.9)


def judge(
    calibration: LabelsCalibration, level: float, *labels: str, age: str = "adult"
) -> Verdict:
    gate = LabelsGate(TOY, calibration)
    return run(gate.judge(image(level), Subject(labels, {"age_group": age})), gate.networks)


def test_a_swapped_label_is_refused_and_the_right_one_is_not(
    calibration: LabelsCalibration,
) -> None:
    assert judge(calibration, 0.9, "Effusion").passed
    assert judge(calibration, 0.1, NORMAL).passed
    swapped = judge(calibration, 0.1, "Effusion")
    assert not swapped.passed
    assert swapped.score == pytest.approx(0.1)
    assert swapped.reason is not None
    assert "Effusion not seen: probability 0.100" in swapped.reason
    assert not judge(calibration, 0.9, NORMAL).passed


def test_the_stated_share_of_real_images_that_show_a_finding_passes() -> None:
    probabilities, labels, patients = real()
    for rate in (0.8, 0.9, 0.95):
        found = calibrate_labels(probabilities, labels, patients, TOY, rate)
        effusion = next(
            each for each in found.judged if (each.finding, each.among) == ("Effusion", "adults")
        )
        shown = np.array(["Effusion" in each.findings for each in labels])
        passed = probabilities[shown, 1] >= effusion.threshold
        others = probabilities[~shown, 1] >= effusion.threshold
        # as strict as the rate allows, or lax where only so few others pass
        spare = min(passed.mean() - rate, abs(1 - rate - others.mean()))
        assert passed.mean() >= rate
        assert spare <= 2 / min(shown.sum(), (~shown).sum())
        assert effusion.passes_with.value == pytest.approx(passed.mean())
        assert effusion.passes_without.low <= others.mean() <= effusion.passes_without.high
        assert found.floor is not None
        assert found.floor.low <= 1 - rate


def test_an_easy_finding_is_no_stricter_than_it_must_be() -> None:
    shown = np.arange(400) % 2 == 0
    labels = [Labels(("Effusion",) if each else (NORMAL,)) for each in shown]
    rng = np.random.default_rng(0)
    probabilities = np.full((400, 4), 0.5)
    probabilities[:, 1] = np.where(shown, rng.uniform(0.98, 1, 400), rng.uniform(0, 0.1, 400))
    found = calibrate_labels(probabilities, labels, [f"p{i}" for i in range(400)], TOY, 0.9)
    (effusion,) = (each for each in found.judged if each.among == "adults")
    assert 0.08 < effusion.threshold < 0.1  # nine tenths of the others are below
    assert effusion.passes_with.value == 1


def test_a_finding_is_unjudged_if_unknown_rare_or_beyond_the_classifier(
    calibration: LabelsCalibration,
) -> None:
    verdict = judge(calibration, 0.9, "Effusion", "Hernia", "Edema")
    assert verdict.passed
    assert verdict.unjudged == ("Hernia", "Edema")
    alone = judge(calibration, 0.9, "Hernia")
    assert (alone.passed, alone.score, alone.unjudged) == (True, None, ("Hernia",))
    why = calibration.unjudged
    assert why["Hernia among adults"] == "the classifier does not know it"
    assert (
        why["Edema among adults"]
        == "5 held-out images show it, 395 do not: too few for a rate of 0.9"
    )
    assert why["Effusion among children"].startswith("0 held-out images show it")


def test_a_coin_judges_nothing() -> None:
    probabilities, labels, patients = real()
    probabilities[:, 1] = np.random.default_rng(1).random(len(labels))
    found = calibrate_labels(probabilities, labels, patients, TOY, 0.9)
    assert "cannot tell it" in found.unjudged["Effusion among adults"]


def test_of_several_findings_the_least_seen_one_decides(calibration: LabelsCalibration) -> None:
    verdict = judge(calibration, 0.95, "Effusion", NORMAL)
    assert not verdict.passed
    assert verdict.reason is not None
    assert NORMAL in verdict.reason


def test_age_decides_among_whom_and_unknown_is_everyone(calibration: LabelsCalibration) -> None:
    assert judge(calibration, 0.1, "Effusion", age="child").unjudged == ("Effusion",)
    assert not judge(calibration, 0.1, "Effusion", age="over 60").passed
    gate = LabelsGate(TOY, calibration)
    unknown = run(gate.judge(image(0.1), Subject(("Effusion",))), gate.networks)
    assert not unknown.passed


def test_company_changes_no_verdict(calibration: LabelsCalibration) -> None:
    gate = LabelsGate(TOY, calibration)
    engine = Engine(gate.networks, 4)
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    about = Subject(("Effusion",), {"age_group": "adult"})
    tickets = [engine.submit(gate.judge(image(level), about)) for level in levels]
    engine.drain()
    alone = [judge(calibration, level, "Effusion") for level in levels]
    assert [ticket.result() for ticket in tickets] == alone


def test_thresholds_are_of_one_classifier(calibration: LabelsCalibration) -> None:
    other = replace(TOY, encoder=replace(TOY.encoder, id="toy@1"))
    with pytest.raises(InvalidInput, match="toy@1"):
        LabelsGate(other, calibration)
