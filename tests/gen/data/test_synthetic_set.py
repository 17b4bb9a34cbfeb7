"""Synthetic sets: what their rows say of each image, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from gen.data.captions import Labels
from gen.data.notes import Notes
from gen.data.samples import Sample, write_tar
from gen.data.synthetic_set import read_synthetic
from gen.errors import InvalidInput

ROW = {
    "split": "train", "labels": ["Effusion", "Cardiomegaly"], "prompt": "a chest",
    "group": {"sex": "female", "age_group": "adult", "view": "AP"},
}  # fmt: skip


def shard(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_tar(
            stream,
            [Sample(f"{path.stem}-{i}", {"png": b"x%d" % i}, row) for i, row in enumerate(rows)],
        )
    return path


def test_all_shards_of_a_job_are_read_with_their_labels_and_people(tmp_path: Path) -> None:
    notes = Notes()
    child = {"labels": ["Viral pneumonia"], "group": {"sex": None, "age_group": "child"}}
    shard(tmp_path / "job" / "shards" / "a.tar", ROW, ROW | child)
    shard(tmp_path / "job" / "shards" / "b.tar", ROW | {"labels": [], "prompt": "PA. Hernia."})
    found = list(read_synthetic(tmp_path / "job", notes))
    assert [each.labels for each in found] == [
        Labels(("Cardiomegaly", "Effusion"), "AP", None, "F"),
        Labels(("Viral pneumonia",), None, None, None, True),
        Labels(("Hernia",), "PA"),
    ]
    assert [each.source for each in found] == [b"x0", b"x1", b"x0"]
    assert len(notes.lines()) == 1
    assert "take their labels from their prompts" in notes.lines()[0]
    alone = list(read_synthetic(tmp_path / "job" / "shards" / "b.tar", notes))
    assert alone == found[2:]


def test_what_has_no_usable_label_is_left_out_and_said(tmp_path: Path) -> None:
    notes = Notes()
    path = shard(
        tmp_path / "s.tar", ROW, ROW | {"labels": ["Gout"]}, ROW | {"labels": [], "prompt": None}
    )
    assert len(list(read_synthetic(path, notes))) == 1
    assert notes.lines() == [
        "1 sample(s) have a label that gen.data.captions has no name for, and are left out;"
        " the first: s-1 (Gout)",
        "1 sample(s) have neither labels nor a prompt, and are left out; the first: s-2",
    ]


@pytest.mark.parametrize("split", ["test", "val"])
def test_images_of_another_split_than_train_are_refused(tmp_path: Path, split: str) -> None:
    path = shard(tmp_path / "s.tar", ROW, ROW | {"split": split})
    with pytest.raises(InvalidInput, match=rf"s.tar/s-1 of the split '{split}', but only"):
        list(read_synthetic(path, Notes()))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"")
    row = {"file_name": "0.png", "prompt": "effusion", "split": split}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InvalidInput, match=rf"0.png of the split '{split}', but only"):
        list(read_synthetic(folder, Notes()))


def test_a_folder_of_prompted_images_is_read_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    row = {"file_name": "0.png", "prompt": "Portable chest X-ray of a man with effusion."}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    notes = Notes()
    (found,) = read_synthetic(tmp_path, notes)
    assert found.labels == Labels(("Effusion",), "AP", None, "M")
    assert found.source == (tmp_path / "0.png").resolve()
    assert "take their labels from their prompts" in notes.lines()[0]
