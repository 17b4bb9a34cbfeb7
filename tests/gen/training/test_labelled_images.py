"""Shares of patients, drawn by what is rare, and images in memory."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gen.data.notes import Notes
from gen.errors import InvalidInput
from gen.training.labelled_images import draw_patients, rarest_finding, read_real_images


def test_a_patient_counts_as_the_rarest_that_any_of_their_images_shows() -> None:
    stated = np.array([[1, 0, 0], [1, 1, 0], [0, 0, np.nan], [1, 0, 1], [1, 0, 0]], float)
    # shown 4, 1 and 1 times; the second is the rarest of equals by its place
    assert rarest_finding(stated, ["a", "b", "c", "d", "d"]).tolist() == [0, 1, 3, 2, 2]
    assert rarest_finding(stated, ["a", "a", "c", "d", "c"]).tolist() == [1, 1, 0, 2, 0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), small=st.floats(0.02, 0.5), more=st.floats(0, 0.5))
def test_shares_are_of_whole_patients_hold_what_is_rare_and_grow(
    seed: int, small: float, more: float
) -> None:
    rng = np.random.default_rng(seed)
    patients = [f"p{i}" for i in rng.integers(0, 30, 60)]
    stated = (rng.random((60, 3)) < [0.5, 0.2, 0.03]).astype(float)
    rows = draw_patients(stated, patients, small, seed)
    chosen = {patients[row] for row in rows}
    assert set(rows) == {i for i, patient in enumerate(patients) if patient in chosen}
    kinds = rarest_finding(stated, patients)
    for kind in np.unique(kinds):
        everyone = {patients[i] for i in np.flatnonzero(kinds == kind)}
        assert len(everyone & chosen) == max(1, round(small * len(everyone)))
    assert set(rows) <= set(draw_patients(stated, patients, small + more, seed))


def write(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("file", "split", "findings", "patient_id"))
        writer.writeheader()
        writer.writerows(rows)
    for i, row in enumerate(rows):
        ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) + i
        Image.fromarray(ramp).save(folder / row["file"])
    return folder


def test_images_that_cannot_be_read_are_named_and_never_black(tmp_path: Path) -> None:
    rows = [
        {"file": "a.png", "split": "train", "findings": "Mass", "patient_id": "p"},
        {"file": "b.png", "split": "train", "findings": "Mass", "patient_id": ""},
        {"file": "c.png", "split": "val", "findings": "Mass", "patient_id": "q"},
        {"file": "d.png", "split": "train", "findings": "Gout", "patient_id": "q"},
    ]
    folder, notes = write(tmp_path, rows), Notes()
    (folder / "a.png").write_bytes(b"no picture")
    found = read_real_images(folder, "train", 4, notes)
    assert (found.names, found.patients) == (["b.png"], ["file b.png"])
    assert found.pixels.shape == (1, 1, 4, 4)
    assert found.pixels.float().std() > 0
    assert any("cannot be read; the first: a.png" in line for line in notes.lines())
    assert any("Gout" in line for line in notes.lines())
    with pytest.raises(InvalidInput, match="no labelled image"):
        read_real_images(folder, "train", 9, notes)
    assert notes.lines()[-1].startswith("1 image(s) are stored below 9 pixels a side")
    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match="no labelled image of the split 'val'"):
        read_real_images(folder, "val", 4, notes)
