"""A copy of a training image or of the source is refused, a different patient is not."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.gates.copies import CopiesGate
from gen.gates.gate import Subject, Verdict
from gen.metrics.calibration import calibrate
from gen.metrics.copies import describe_both_ways, index_training, match
from gen.metrics.planted import ALTERATIONS


def textures(count: int, seed: int) -> Tensor:
    """Smooth random pictures (count, 1, 128, 128) uint8 that have nothing in common."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, 128, 128))
    smooth = gaussian_filter(noise, 2.6, axes=(-2, -1))
    return torch.from_numpy(128 + 40 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)


def coarse(prepared: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(prepared, 8).flatten(1)


ENCODER = Encoder("coarse@0", 64, 64, coarse, "cpu")
TRAIN, OTHERS = textures(40, 0), textures(120, 1)
PATIENTS = [f"p{i // 2}" for i in range(40)]  # two images each
NAMES = [f"train/{i}.png" for i in range(40)]


@pytest.fixture(scope="module")
def gate() -> CopiesGate:
    features = describe_both_ways(TRAIN, ENCODER).features
    index = index_training(TRAIN, features, PATIENTS)
    held_out = match(describe_both_ways(OTHERS, ENCODER), index)
    calibration = calibrate(held_out, [f"q{i}" for i in range(120)], PATIENTS, 0.02)
    return CopiesGate(index, NAMES, ENCODER, calibration.threshold.value)


def as_made(images: Tensor) -> Tensor:
    return images.float() / 255


def judge(gate: CopiesGate, image: Tensor, **about: Any) -> Verdict:
    return run(gate.judge(as_made(image), Subject(**about)), gate.networks)


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_training_image_is_refused_and_named(gate: CopiesGate, alteration: str) -> None:
    copies = ALTERATIONS[alteration](TRAIN[[7, 23]], np.random.default_rng(0))
    for row, copy in zip((7, 23), copies, strict=True):
        verdict = judge(gate, copy[None])
        assert not verdict.passed
        assert verdict.reason is not None
        assert NAMES[row] in verdict.reason


def test_other_patients_pass(gate: CopiesGate) -> None:
    refused = sum(not judge(gate, image[None]).passed for image in textures(40, 2))
    assert refused <= 3  # 2 % of 40, and more than three in a hundred draws


def test_a_variation_that_is_its_source_is_refused_though_the_source_is_no_training_image(
    gate: CopiesGate,
) -> None:
    source, other = OTHERS[:1], OTHERS[1:2]
    copy = ALTERATIONS["everything"](source, np.random.default_rng(0))
    verdict = judge(gate, copy, source="mine.png", source_image=as_made(source))
    assert not verdict.passed
    assert verdict.reason is not None
    assert verdict.fault == "copy of its source"
    assert judge(gate, copy, source="mine.png", source_image=as_made(other)).passed
    assert judge(gate, copy).passed


def test_a_source_among_the_training_images_is_judged_by_its_name(gate: CopiesGate) -> None:
    verdict = judge(gate, TRAIN[8:9], source=NAMES[8])
    assert not verdict.passed
    assert verdict.score == pytest.approx(1, abs=0.02)


def test_what_shall_keep_its_source_may_be_like_it_and_its_patient_but_no_one_else(
    gate: CopiesGate,
) -> None:
    kept = {"source": NAMES[8], "keeps_source": True}
    assert judge(gate, TRAIN[8:9], **kept).passed
    assert judge(gate, TRAIN[9:10], **kept).passed  # the same patient
    assert not judge(gate, TRAIN[10:11], **kept).passed
    stranger = {"source": "mine.png", "patient": "p4", "keeps_source": True}
    assert judge(gate, TRAIN[8:9], **stranger).passed


def test_company_changes_no_verdict(gate: CopiesGate) -> None:
    images = [*TRAIN[:3].split(1), *OTHERS[:3].split(1)]
    engine = Engine(gate.networks, 8)
    tickets = [engine.submit(gate.judge(as_made(image), Subject())) for image in images]
    engine.drain()
    for ticket, image in zip(tickets, images, strict=True):
        together, alone = ticket.result(), judge(gate, image)
        assert together.passed == alone.passed
        assert together.score == pytest.approx(alone.score, abs=1e-5)


def test_pixels_that_are_no_numbers_are_left_to_another_gate(gate: CopiesGate) -> None:
    verdict = run(gate.judge(torch.full((1, 1, 128, 128), torch.nan), Subject()), gate.networks)
    assert verdict.passed
    assert verdict.score is not None
    assert np.isfinite(verdict.score)


def test_every_training_image_has_a_name(gate: CopiesGate) -> None:
    with pytest.raises(InvalidInput, match="39 names"):
        CopiesGate(gate.index, NAMES[1:], ENCODER, 0.5)
