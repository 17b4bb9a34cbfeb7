"""manifest.csv in, metadata.jsonl out, and no path leaves the folder."""

import csv
import json
from pathlib import Path

import pytest

from gen.data.manifest import (
    Box,
    append_metadata,
    inside,
    read_manifest,
    read_metadata,
    write_metadata,
)
from gen.errors import InvalidInput, UnsafeFile

CELLS = {
    "file": "images/a.jpg", "source_repo": "x/y", "licence": "CC BY 4.0", "view": "PA",
    "findings": "Effusion|Mass", "text": "Some text, quoted", "prompt": "Chest X-ray",
    "patient_id": "p1", "split": "train", "age": "36", "sex": "F", "width": "512",
    "height": "400", "orig_width": "1024", "orig_height": "800",
    "boxes": '[{"label": "Mass", "x": 1.5, "y": 2, "w": 3, "h": 4}]',
    "mask_files": "masks/l.png|masks/r.png",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in ("images/a.jpg", "masks/l.png", "masks/r.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def write_csv(folder: Path, *rows: dict[str, str]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_row_is_read_into_its_types(folder: Path) -> None:
    write_csv(folder, CELLS)
    (row,) = read_manifest(folder)
    assert row.findings == ("Effusion", "Mass")
    assert row.mask_files == ("masks/l.png", "masks/r.png")
    assert row.boxes == (Box(label="Mass", x=1.5, y=2, w=3, h=4),)
    assert (row.age, row.sex, row.view, row.split) == (36.0, "F", "PA", "train")
    assert (row.orig_width, row.orig_height) == (1024, 800)


def test_empty_cells_are_none_and_only_three_columns_are_needed(folder: Path) -> None:
    empty = dict.fromkeys(("age", "sex", "boxes", "mask_files", "orig_width", "view"), "")
    write_csv(folder, {**CELLS, **empty})
    (row,) = read_manifest(folder)
    assert (row.age, row.sex, row.orig_width, row.view) == (None, None, None, None)
    assert (row.boxes, row.mask_files) == ((), ())
    write_csv(folder, {"file": "images/a.jpg", "split": "val", "findings": ""})
    assert read_manifest(folder)[0].findings == ()


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("age", "old", "line 2: age is 'old'"),
        ("age", "-1", "greater than or equal to 0"),
        ("split", "all", "'train', 'val' or 'test'"),
        ("width", "0", "line 2: width is '0'"),
        ("boxes", "[{]", "line 2: boxes"),
        ("boxes", '[{"label": "x"}]', "boxes.0.x"),
        ("file", "images/b.jpg", r"1 file\(s\) that do not exist, first 'images/b.jpg'"),
        ("mask_files", "masks/no.png", "first 'masks/no.png'"),
    ],
)
def test_a_wrong_cell_is_named(folder: Path, column: str, cell: str, reason: str) -> None:
    write_csv(folder, {**CELLS, column: cell})
    with pytest.raises(InvalidInput, match=reason):
        read_manifest(folder)


@pytest.mark.parametrize("file", ["../a.jpg", "/etc/passwd", "images/../../a.jpg", ".", "a\0b"])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, file: str) -> None:
    with pytest.raises(UnsafeFile, match=r"leaves|no usable path"):
        inside(folder, file)
    if "\0" not in file:
        write_csv(folder, {**CELLS, "file": file})
        with pytest.raises(UnsafeFile, match="leaves"):
            read_manifest(folder)


def test_a_link_that_leaves_the_folder_is_refused(folder: Path) -> None:
    (folder / "images" / "link.jpg").symlink_to("/etc/passwd")
    write_csv(folder, {**CELLS, "file": "images/link.jpg"})
    with pytest.raises(UnsafeFile, match="leaves"):
        read_manifest(folder)


def test_a_manifest_that_is_absent_short_or_ragged_is_named(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"manifest\.csv cannot be opened"):
        read_manifest(folder)
    write_csv(folder, {"file": "images/a.jpg", "view": "PA"})
    with pytest.raises(InvalidInput, match="lacks the column split, findings"):
        read_manifest(folder)
    for line in ("images/a.jpg,train", "images/a.jpg,train,Mass,more"):
        (folder / "manifest.csv").write_text(f"file,split,findings\n{line}\n")
        with pytest.raises(InvalidInput, match="line 2: it has more or fewer cells"):
            read_manifest(folder)
    (folder / "manifest.csv").write_bytes(b"\xff\xfe,\x00")
    with pytest.raises(InvalidInput, match="not a CSV file in UTF-8"):
        read_manifest(folder)


def test_metadata_is_appended_and_the_last_line_about_a_file_counts(folder: Path) -> None:
    append_metadata(folder, [{"file_name": "images/a.jpg", "seed": 1}])
    append_metadata(folder, [{"file_name": "images/a.jpg", "seed": 2}])
    assert (folder / "metadata.jsonl").read_text().count("\n") == 2
    assert read_metadata(folder) == {"images/a.jpg": {"file_name": "images/a.jpg", "seed": 2}}


@pytest.mark.parametrize("rest", ['{"file_name": "imag', "\n".join(["{}", "{"])])
def test_a_torn_line_is_cut_off_before_the_next_one(folder: Path, rest: str) -> None:
    row = {"file_name": "images/a.jpg"}
    append_metadata(folder, [row])
    with (folder / "metadata.jsonl").open("a") as stream:
        stream.write(rest.split("\n")[-1])
    assert read_metadata(folder) == {"images/a.jpg": row}
    append_metadata(folder, [row])
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row, row]


def test_a_line_about_no_file_is_refused_and_nothing_written(folder: Path) -> None:
    good = {"file_name": "images/a.jpg"}
    for bad in ({}, {"file_name": "images/none.png"}, {"file_name": 3}):
        with pytest.raises(InvalidInput, match="write the picture first"):
            append_metadata(folder, [good, bad])
    with pytest.raises(UnsafeFile, match="leaves"):
        append_metadata(folder, [{"file_name": "../x.png"}])
    assert not (folder / "metadata.jsonl").exists()
    with pytest.raises(InvalidInput, match="is not a folder"):
        append_metadata(folder / "none", [good])


def test_metadata_written_at_once_replaces_only_on_request(folder: Path) -> None:
    row = {"file_name": "images/a.jpg"}
    write_metadata(folder, [row])
    with pytest.raises(InvalidInput, match="not overwritten"):
        write_metadata(folder, [])
    write_metadata(folder, [], overwrite=True)
    assert read_metadata(folder) == {}


def test_damaged_metadata_is_named(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be opened"):
        read_metadata(folder)
    (folder / "metadata.jsonl").write_text("[]\n")
    with pytest.raises(InvalidInput, match="damaged"):
        read_metadata(folder)
