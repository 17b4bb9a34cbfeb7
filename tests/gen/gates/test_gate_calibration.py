"""A calibration is one file, read back as it was."""

from pathlib import Path

import pytest

from gen.errors import InvalidInput
from gen.gates.calibration import GateCalibration, read_calibration, write_calibration
from gen.gates.copies import CopiesCalibration
from gen.gates.labels import FindingThreshold, LabelsCalibration
from gen.gates.sanity import SanityCalibration
from gen.metrics.calibration import Calibration
from gen.metrics.intervals import Estimate

HALF = Estimate(0.5, 0.25, 0.75)
FOUND = Calibration(HALF, HALF, 0.01, 100)
CALIBRATION = GateCalibration(
    reference="cxr",
    digest="ab",
    training=3,
    held_out=2,
    sanity=SanityCalibration(usual={"brightness": (0, 1, 2)}, num_images=3, calibration=FOUND),
    copies=CopiesCalibration(encoder="e@1", num_images=3, calibration=FOUND),
    labels=LabelsCalibration(
        classifier="c@1",
        true_positive_rate=0.9,
        num_images=2,
        judged=(
            FindingThreshold(
                finding="Edema", among="adults", threshold=0.1, num_shown=9, num_not_shown=9,
                auroc=HALF, passes_with=HALF, passes_without=HALF,
            ),
        ),
        unjudged={"Hernia among adults": "rare"},
        floor=None,
    ),
    notes=("none",),
)  # fmt: skip


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_calibration(tmp_path / "gates.json", CALIBRATION)
    assert read_calibration(tmp_path / "gates.json") == CALIBRATION


def test_a_damaged_or_older_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.json"
    with pytest.raises(InvalidInput, match="calibrate anew"):
        read_calibration(path)
    write_calibration(path, CALIBRATION)
    for text in (path.read_text()[:-9], path.read_text().replace('"version": 1', '"version": 0')):
        path.write_text(text)
        with pytest.raises(InvalidInput, match="calibrate anew"):
            read_calibration(path)
