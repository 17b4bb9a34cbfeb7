"""The report counts what gates let pass, by whom it shows, beside what real images reach."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gen.data.samples import Sample, write_tar
from gen.errors import InvalidInput
from gen.gates.calibration import GateCalibration, write_calibration
from gen.gates.copies import CopiesCalibration
from gen.gates.gate import Verdict
from gen.metrics.calibration import Calibration
from gen.metrics.intervals import Estimate
from jobs.gates.calibrate import CALIBRATION, PLANTED
from jobs.gates.figures import quality
from jobs.gates.log import JudgedItem, read_judged
from jobs.gates.report import keep_calibration, write_report


def item(number: int, outcomes: str, label: str = "Edema", sex: str = "female") -> JudgedItem:
    """`outcomes` has an attempt a letter: p passed, c a copy, l not seen by the classifier."""
    attempts = tuple(
        (
            Verdict("copies", o != "c", 0.5, 0.6, "copy of its source: 0.7" if o == "c" else None),
            Verdict("labels", o != "l", 0.5, 0.6, f"{label} not seen: 0" if o == "l" else None),
        )
        for o in outcomes
    )
    accepted = outcomes.endswith("p")
    return JudgedItem(
        id=f"i{number}", labels=(label,), group={"sex": sex}, accepted=accepted, attempts=attempts
    )


ITEMS = [
    *(item(i, "p") for i in range(6)),
    item(6, "lp"),
    item(7, "ccc", "Mass"),
    *(item(i, "lcp", "Mass", "male") for i in range(8, 12)),
]


def test_acceptance_is_counted_by_class_and_group() -> None:
    found = quality(ITEMS)
    assert found is not None
    assert (found.overall.items, found.overall.attempts, found.overall.given_up) == (12, 23, 1)
    assert found.overall.first.value == pytest.approx(6 / 12)
    assert found.overall.kept.value == pytest.approx(11 / 12)
    assert found.by["label"]["Edema"].first.value == pytest.approx(6 / 7)
    assert found.by["label"]["Mass"].given_up == 1
    assert found.by["sex"]["male"].first.value == 0
    assert found.by["sex"]["male"].kept.value == 1
    gap = found.gaps["label"]
    assert (gap.best, gap.worst, gap.value) == ("Edema", "Mass", pytest.approx(6 / 7))
    assert 0 < gap.low < gap.value < gap.high


def test_a_gate_is_measured_on_first_attempts_and_its_faults_on_all() -> None:
    found = quality(ITEMS)
    assert found is not None
    copies, labels = found.gates["copies"], found.gates["labels"]
    assert copies.refused.value == pytest.approx(1 / 12)
    assert copies.faults == {"copy of its source": 7}
    assert labels.refused.value == pytest.approx(5 / 12)
    assert labels.faults == {"Mass not seen": 4, "Edema not seen": 1}


def test_what_was_not_judged_is_counted() -> None:
    verdict = Verdict("labels", True, None, None, None, ("Hernia",))
    unjudged = JudgedItem(
        id="h", labels=("Hernia",), group={}, accepted=True, attempts=((verdict,),)
    )
    found = quality([unjudged] * 3)
    assert found is not None
    assert found.gates["labels"].unjudged == {"Hernia": 3}
    assert quality([]) is None


@given(outcomes=st.lists(st.from_regex(r"\A[cl]{0,3}p?\Z").filter(bool), min_size=1, max_size=20))
def test_kept_and_given_up_are_all_and_no_interval_leaves_out_its_value(
    outcomes: list[str],
) -> None:
    found = quality([item(i, each) for i, each in enumerate(outcomes)])
    assert found is not None
    all_ = found.overall
    assert all_.given_up + round(all_.kept.value * all_.items) == len(outcomes)
    assert all_.attempts == sum(map(len, outcomes))
    for each in (all_.first, all_.kept, found.gates["copies"].refused):
        assert each.low - 1e-12 <= each.value <= each.high + 1e-12
    assert all_.first.value <= all_.kept.value


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 24), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def job_folder(out: Path, items: list[JudgedItem]) -> Path:
    """As the runner leaves it: a shard with its note, and a report of counts."""
    shards = out / "shards"
    shards.mkdir(parents=True)
    with (shards / "shard-000000.tar").open("wb") as stream:
        write_tar(stream, [Sample("a", {"png": png(90)}, {}), Sample("b", {"png": png(9)}, {})])
    judged = [
        {
            **each.model_dump(exclude={"attempts"}),
            "attempts": [[v.as_json() for v in attempt] for attempt in each.attempts],
        }
        for each in items
    ]
    note: dict[str, Any] = {"shard": 0, "judged": judged}
    (shards / "shard-000000.json").write_text(json.dumps(note))
    (out / "report.json").write_text(json.dumps({"made": 11, "failed": 1, "quality": "older"}))
    return out


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    folder = tmp_path / "calibrated"
    folder.mkdir()
    floor = Calibration(Estimate(0.7, 0.6, 0.8), Estimate(0.012, 0.006, 0.024), 0.01, 500)
    copies = CopiesCalibration(encoder="e@1", num_images=10, calibration=floor)
    write_calibration(
        folder / CALIBRATION,
        GateCalibration(
            reference="chests", digest="0", training=10, held_out=500,
            sanity=None, copies=copies, labels=None, notes=("64 previews left out",),
        ),
    )  # fmt: skip
    recall = {"value": 0.98, "low": 0.93, "high": 1.0, "images": 100}
    (folder / PLANTED).write_text(json.dumps({"flip": recall, "noise": {**recall, "value": 0.95}}))
    (folder / "index.safetensors").write_bytes(b"patients")
    return folder


def test_the_report_is_one_page_and_figures_beside_the_counts(
    tmp_path: Path, calibrated: Path
) -> None:
    out = job_folder(tmp_path / "out", ITEMS)
    keep_calibration(calibrated, out)
    (out / "rejected").mkdir()
    (out / "rejected" / "i7-0.png").write_bytes(png(200))
    found = write_report(out)
    report = json.loads((out / "report.json").read_text())
    assert found is not None
    assert report["made"] == 11
    assert report["quality"] == json.loads(found.model_dump_json())
    assert report["quality"]["gates"]["copies"]["floor"]["value"] == 0.012
    assert report["quality"]["planted"]["noise"]["value"] == 0.95
    page = (out / "report.html").read_text()
    assert "built-in method" not in page
    for words in ("Mass", "at least 95%", "changed by noise", "64 previews left out", "Refused"):
        assert words in page
    assert page.count("data:image/jpeg") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert not (out / "gates" / "index.safetensors").exists()  # it shows patients
    write_report(out)
    assert json.loads((out / "report.json").read_text()) == report


def test_a_job_without_gates_is_said_to_be_unjudged(tmp_path: Path) -> None:
    out = job_folder(tmp_path / "out", [])
    assert write_report(out) is None
    assert "No gate judged" in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())["quality"] is None


def test_a_folder_of_no_job_and_a_damaged_note_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no shards"):
        write_report(tmp_path)
    out = job_folder(tmp_path / "out", ITEMS)
    (out / "shards" / "shard-000000.json").write_text('{"judged": [{"id": 3}]}')
    with pytest.raises(InvalidInput, match="damaged"):
        list(read_judged(out))
