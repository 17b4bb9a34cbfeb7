"""Images of any origin become one list, and what is left out is said."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gen.data.captions import NORMAL, PHRASES, Labels
from gen.data.collection import CHEXPERT, Collection, pictures_in, read_collection
from gen.errors import InvalidInput, UnsafeFile

NONE_OF_14 = dict.fromkeys(CHEXPERT, 0)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def metadata(folder: Path, *rows: Mapping[str, Any], end: str = "\n") -> Path:
    text = "\n".join(json.dumps(row) for row in rows) + end
    (folder / "metadata.jsonl").write_text(text)
    return folder


def said(collection: Collection, words: str) -> bool:
    return any(words in line for line in collection.omissions)


def chexpert(folder: Path, labels: object, **cells: object) -> Collection:
    """A benchmark's table of one row."""
    picture(folder / "a.png")
    row = {"path": "a.png", "annotated_prompt": "Rib fracture.", "chexpert_labels": labels}
    table(folder / "t.csv", [{**row, **cells}])
    return read_collection(folder)


def test_a_manifest_gives_labels_patients_splits_and_true_sizes(tmp_path: Path) -> None:
    picture(tmp_path / "images/kermany/1.png")
    picture(tmp_path / "images/nih/2.png")
    child = {
        "file": "images/kermany/1.png", "split": "train", "findings": "pneumonia|viral",
        "prompt": "", "view": "AP", "age": "", "sex": "", "patient_id": "k1",
        "orig_width": 1200, "orig_height": 800,
    }  # fmt: skip
    adult = {
        **child, "file": "images/nih/2.png", "split": "test", "findings": "Effusion",
        "prompt": "CXR", "age": 61, "sex": "F", "patient_id": "", "orig_width": "",
    }  # fmt: skip
    table(tmp_path / "manifest.csv", [child, adult])
    collection = read_collection(tmp_path)
    first, second = collection.items
    assert first.labels == Labels(("Viral pneumonia",), "AP", child=True)
    assert second.labels == Labels(("Effusion",), "AP", 61, "F")
    assert (first.orig_size, second.orig_size) == ((800, 1200), None)
    assert (first.patient, second.patient) == ("k1", None)
    assert (first.prompt, second.prompt) == (None, "CXR")
    assert (first.name, first.file) == ("images/kermany/1.png", tmp_path / "images/kermany/1.png")
    assert collection.omissions == []
    assert read_collection(tmp_path / "manifest.csv", "test").items == [second]
    with pytest.raises(InvalidInput, match=r"split is 'val'.*test, train"):
        read_collection(tmp_path, "val")


def test_a_finding_without_a_name_is_said_and_never_guessed(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"file": "a.png", "split": "test", "findings": "Scoliosis", "prompt": "normal chest"}
    table(tmp_path / "manifest.csv", [row])
    collection = read_collection(tmp_path)
    assert collection.items[0].labels is None
    assert said(collection, "a.png (Scoliosis)")


def test_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    table(tmp_path / "manifest.csv", [{"file": "a.png", "findings": "Mass"}])
    with pytest.raises(InvalidInput, match="lacks the column split"):
        read_collection(tmp_path)
    table(tmp_path / "manifest.csv", [{"file": "gone.png", "findings": "Mass", "split": "val"}])
    with pytest.raises(InvalidInput, match=r"do not exist, first 'gone\.png'"):
        read_collection(tmp_path)


@pytest.mark.parametrize("key", ["prompt", "text"])
def test_an_image_folder_takes_its_labels_from_its_prompts(tmp_path: Path, key: str) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    sentence = "PA chest X-ray of a 70-year-old man with pleural effusion."
    metadata(
        tmp_path,
        {"file_name": "a.png", key: sentence},
        {"file_name": "b.png"},
        {"file_name": "gone.png", key: sentence},
    )
    collection = read_collection(tmp_path)
    assert [item.name for item in collection.items] == ["a.png", "b.png"]
    assert collection.items[0].prompt == sentence
    assert collection.items[0].labels == Labels(("Effusion",), "PA", 70, "M")
    assert collection.items[1].labels is None
    assert said(collection, "1 row(s) name a file that does not exist; the first: gone.png")
    assert said(collection, "1 image(s) take their labels from their prompts")
    assert said(collection, "1 image(s) have neither labels nor a prompt; the first: b.png")


def test_a_last_line_without_an_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    rows = [{"file_name": name, "prompt": "mass"} for name in ("a.png", "b.png")]
    metadata(tmp_path, *rows, end="")
    assert len(read_collection(tmp_path).items) == 2
    metadata(tmp_path, *rows, end="\n" + '{"file_name": "c.p')
    collection = read_collection(tmp_path)
    assert len(collection.items) == 2
    assert said(collection, "torn line")


@pytest.mark.parametrize("written", [repr, json.dumps])
def test_a_benchmark_table_maps_its_classes_to_our_names(tmp_path: Path, written: Any) -> None:
    labels = {
        **NONE_OF_14,
        **{"Pleural Effusion": 1.0, "Edema": 1, "Fracture": 1, "Pneumonia": -1},
        **{"Atelectasis": float("nan"), "Mass": 0},
    }
    collection = chexpert(tmp_path, written(labels), view="PA")
    assert collection.items[0].labels == Labels(("Edema", "Effusion"), "PA")
    assert collection.items[0].prompt == "Rib fracture."
    assert said(collection, "labelled Fracture, which has no name here")
    assert said(collection, "uncertain Pneumonia count as without it")
    assert len(collection.omissions) == 2


def test_every_class_of_the_benchmark_is_mapped_or_has_none() -> None:
    assert len(CHEXPERT) == 14
    assert {name for name in CHEXPERT.values() if name} <= set(PHRASES)


@given(st.dictionaries(st.sampled_from(sorted(CHEXPERT)), st.sampled_from([1, 0, -1, None])))
def test_no_image_is_normal_beside_a_finding(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, int | None]
) -> None:
    positive = {name for name, value in labels.items() if value == 1}
    found = chexpert(tmp_path_factory.mktemp("t"), json.dumps(labels)).items[0].labels
    if found is None:
        return
    stated_normal = positive and positive <= {"No Finding", "Support Devices"}
    assert found.findings
    assert (NORMAL in found.findings) == bool(stated_normal)
    assert set(found.findings) <= {CHEXPERT[name] for name in positive}


@pytest.mark.parametrize(
    "labels", ["{'Edema': 2}", "__import__('os').getcwd()", "[1, 2]", "{'Edema': 1", "(" * 5000]
)
def test_labels_that_cannot_be_read_are_said_and_nothing_is_run(
    tmp_path: Path, labels: str
) -> None:
    collection = chexpert(tmp_path, labels)
    assert collection.items[0].labels is None
    assert said(collection, "no dictionary")


@pytest.mark.parametrize("empty", ["", "nan"])
def test_labels_that_are_absent_come_from_the_prompt(tmp_path: Path, empty: str) -> None:
    collection = chexpert(tmp_path, empty, annotated_prompt="Large pneumothorax.")
    assert collection.items[0].labels == Labels(("Pneumothorax",))


def test_a_made_image_goes_before_the_real_one_it_was_prompted_by(tmp_path: Path) -> None:
    picture(tmp_path / "made.png")
    picture(tmp_path / "files/p10/p10000032/s50414267/real.png")
    row = {
        "path": "files/p10/p10000032/s50414267/real.png",
        "annotated_prompt": "Mass.",
        "subject_id": "10000032",
    }
    table(tmp_path / "real.csv", [row])
    table(tmp_path / "made.csv", [{**row, "synthetic_filename": "made.png"}])
    with pytest.raises(InvalidInput, match=r"several tables \(made.csv, real.csv\)"):
        read_collection(tmp_path)
    real = read_collection(tmp_path / "real.csv").items[0]
    made = read_collection(tmp_path / "made.csv")
    assert (real.name, real.patient) == (row["path"], "10000032")
    assert (made.items[0].name, made.items[0].patient) == ("made.png", None)
    assert said(made, "path column(s) of made.csv are not read, synthetic_filename is")


def test_a_patient_is_read_from_a_path_of_mimic(tmp_path: Path) -> None:
    picture(tmp_path / "files/p10/p10000032/s1/a.png")
    rows = [{"path": "files/p10/p10000032/s1/a.png", "annotated_prompt": "Mass."}]
    assert read_collection(table(tmp_path / "t.csv", rows)).items[0].patient == "10000032"


def test_a_repeated_file_counts_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [{"path": name, "prompt": "Mass."} for name in ("a.png", "./a.png")]
    collection = read_collection(table(tmp_path / "t.csv", rows))
    assert len(collection.items) == 1
    assert said(collection, "repeat a file")


def test_bare_pictures_have_no_labels_and_tables_that_say_nothing_are_named(
    tmp_path: Path,
) -> None:
    for name in ("b.JPG", "sub/a.png", "grid.png", ".hidden/c.png"):
        picture(tmp_path / name)
    metadata(tmp_path / "sub", {"file_name": "a.png", "prompt": "mass"})
    table(tmp_path / "numbers.csv", [{"epoch": 1, "loss": 2}])
    collection = read_collection(tmp_path)
    assert [(item.name, item.labels) for item in collection.items] == [
        ("b.JPG", None),
        ("sub/a.png", None),
    ]
    assert said(collection, "numbers.csv")
    assert said(collection, "sub/metadata.jsonl")
    assert said(collection, "2 image(s) have neither labels nor a prompt")
    with pytest.raises(InvalidInput, match="has no splits"):
        read_collection(tmp_path, "test")


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no picture"):
        read_collection(tmp_path)
    with pytest.raises(InvalidInput, match="neither a folder of images nor a table"):
        read_collection(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="needs one of the columns synthetic_filename"):
        read_collection(table(tmp_path / "t.csv", [{"a": 1}]))
    metadata(tmp_path, {"file_name": "gone.png", "prompt": "mass"})
    with pytest.raises(InvalidInput, match=r"no usable image: .*gone\.png"):
        read_collection(tmp_path)


def test_a_ragged_table_is_refused_by_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,prompt\na.png,Mass.\nb.png\n")
    with pytest.raises(InvalidInput, match="row 2: it has more or fewer cells"):
        read_collection(tmp_path)


@pytest.mark.parametrize("name", ["../out.png", "inner/../a.png", "..\\out.png"])
def test_a_path_that_climbs_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    for each in ("../out.png", "a.png", "inner/b.png"):
        picture(folder / each)
    metadata(folder, {"file_name": name})
    with pytest.raises(UnsafeFile, match=r"climbs with '\.\.'"):
        read_collection(folder)


def test_absolute_paths_and_links_that_leave_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    picture(tmp_path / "out.png")
    folder.mkdir()
    rows = [{"path": str(tmp_path / "out.png"), "prompt": "Mass."}]
    with pytest.raises(UnsafeFile, match="leaves"):
        read_collection(table(folder / "t.csv", rows))
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "t.csv").unlink()
    with pytest.raises(UnsafeFile, match="leaves"):
        read_collection(folder)


def test_pictures_are_found_in_order_without_contact_sheets(tmp_path: Path) -> None:
    for name in ("b.png", "a.dcm", "grid.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in pictures_in(tmp_path)] == ["a.dcm", "b.png"]


def test_a_prompt_counts_once_among_a_benchmarks_real_images_and_always_among_made_ones(
    tmp_path: Path,
) -> None:
    rows = [{"path": f"{i}.png", "annotated_prompt": f"Mass {i // 2}."} for i in range(4)]
    for row in rows:
        picture(tmp_path / row["path"])
    real = read_collection(table(tmp_path / "real.csv", rows))
    assert [item.name for item in real.items] == ["0.png", "2.png"]
    assert said(real, "2 real image(s) repeat a prompt")
    made = [{**row, "synthetic_filename": row["path"]} for row in rows]
    assert len(read_collection(table(tmp_path / "made.csv", made)).items) == 4
    ours = [{"path": row["path"], "prompt": row["annotated_prompt"]} for row in rows]
    assert len(read_collection(table(tmp_path / "ours.csv", ours)).items) == 4
