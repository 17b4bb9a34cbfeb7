"""Every form of manifest gives the same rows, and says what is wrong with a row or the whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gen.errors import InvalidInput
from jobs.runner.readers import open_manifest
from jobs.runner.rows import Row, read_rows
from jobs.runner.spec import ManifestSpec

TABLE = [
    {"id": "a", "image": "x/1.png", "prompt": "no acute finding in a man", "split": "train"},
    {"id": "b", "image": "x/2.png", "prompt": "pneumonia in a child", "split": "train"},
    {"id": "c", "image": "x/3.png", "prompt": "cardiomegaly in a woman", "split": "test"},
]


def rows_of(path: Path, needs: tuple[str, ...] = (), **fields: Any) -> list[Row]:
    spec = ManifestSpec.model_validate({"path": str(path), **fields})
    return list(read_rows(open_manifest(spec), spec, needs))


def write(form: str, folder: Path) -> Path:
    """The table in a form."""
    path = folder / f"table.{form}"
    if form == "csv":
        names = list(TABLE[0])
        path.write_text("\n".join(",".join(row) for row in [names, *(r.values() for r in TABLE)]))
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in TABLE))
    elif form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(TABLE), path)
    elif form == "imagefolder":
        path.mkdir()
        renamed = [{**row, "file_name": row["image"]} for row in TABLE]
        lines = [{k: v for k, v in row.items() if k != "image"} for row in renamed]
        (path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in lines))
    else:
        path = folder / "datalist.json"
        sections = {"training": TABLE[:2], "test": TABLE[2:]}
        path.write_text(json.dumps(sections))
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "imagefolder", "monai"])
def test_every_form_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    rows = rows_of(write(form, tmp_path))
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert [row.image for row in rows] == ["x/1.png", "x/2.png", "x/3.png"]
    assert [row.labels for row in rows] == [("Normal",), ("Pneumonia",), ("Cardiomegaly",)]
    assert [row.group.get("sex") for row in rows] == ["male", None, "female"]
    assert rows[1].group["age_group"] == "child"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "imagefolder", "monai"])
def test_a_split_takes_its_own_rows(form: str, tmp_path: Path) -> None:
    assert [row.id for row in rows_of(write(form, tmp_path), split="test")] == ["c"]


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has the splits test, train"):
        rows_of(write("csv", tmp_path), split="dev")


def test_our_own_manifest_tells_labels_and_whom_it_shows(radiographs: Path) -> None:
    rows = rows_of(radiographs, split="train")
    assert len(rows) == 6
    assert rows[0].labels == ("Normal",)
    assert rows[0].image == "images/nih/0.png"
    assert rows[1].labels == ("Viral pneumonia",)
    assert rows[1].group["age_group"] == "child"
    assert rows[1].patient == "1"
    assert "viral pneumonia" in str(rows[1].prompt)  # told by the labels


def test_folders_are_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.jpg", "a/.hidden.png", ".cache/3.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "p.png")
        (tmp_path / name).write_bytes((tmp_path / "p.png").read_bytes())
    (tmp_path / "p.png").unlink()
    (tmp_path / "a/exported").write_bytes(b"\0" * 128 + b"DICM")
    assert [row.image for row in rows_of(tmp_path)] == ["a/1.jpg", "a/exported", "b/2.png"]
    assert [row.id for row in rows_of(tmp_path, format="dicom")] == ["a/exported"]


def test_an_imagefolder_of_splits_names_files_from_its_root(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text("file_name,text\n1.png,pneumonia\n")
    assert [row.image for row in rows_of(tmp_path, split="test")] == ["test/1.png"]


def test_a_bad_row_is_its_own_fault_only(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = [b"id,prompt,n", b"a,one,1", b"b,two", b"c,\xff,1", b"d,four,many", b"e,five,2"]
    table.write_bytes(b"\n".join(lines))
    rows = rows_of(table)
    assert [row.error is None for row in rows] == [True, False, False, False, True]
    assert "more or fewer cells" in str(rows[1].error)
    assert "UTF-8" in str(rows[2].error)
    assert "n is 'many'" in str(rows[3].error)
    assert rows[4].n == 2
    (tmp_path / "t.jsonl").write_text('{"id": "a", "prompt": "p"}\n{"id": \n[1]\n')
    assert [row.error is None for row in rows_of(tmp_path / "t.jsonl")] == [True, False, False]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "..\\b.png"])
def test_no_row_leaves_the_root(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": name, "prompt": "p"}))
    (row,) = rows_of(tmp_path / "t.jsonl")
    assert row.error is not None
    assert row.image is None


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "data/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data/t.jsonl").write_text('{"image": "link.png"}')
    (row,) = rows_of(tmp_path / "data/t.jsonl")
    assert "leaves" in str(row.error)


def test_columns_may_be_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("dicom_id,report,force\nx,effusion,0.4\n")
    columns = {"id": "dicom_id", "prompt": "report", "strength": "force"}
    (row,) = rows_of(table, columns=columns)
    assert (row.id, row.prompt, row.fields) == ("x", "effusion", {"strength": 0.4})
    with pytest.raises(InvalidInput, match=r"columns of .* are dicom_id, report, force"):
        rows_of(table, columns={"id": "image_id"})


def test_a_row_may_bring_fields_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "p", "params": {"guidance_scale": 2}}')
    assert rows_of(tmp_path / "t.jsonl")[0].fields == {"guidance_scale": 2}
    (tmp_path / "t.csv").write_text('prompt,params\np,"{""guidance_scale"": 2}"\n')
    assert rows_of(tmp_path / "t.csv")[0].fields == {"guidance_scale": 2}


def test_a_manifest_without_what_the_task_needs_is_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,file\na,1.png\n")
    with pytest.raises(InvalidInput, match="no column for prompt or labels"):
        rows_of(tmp_path / "t.csv", needs=("prompt", "labels"))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "t.csv", "is empty"),
        ("id,prompt\n", "t.csv", "no row"),
        ("[1]", "t.json", "no MONAI datalist"),
        ("{", "t.json", "no JSON"),
        ("x", "t.parquet", "no Parquet"),
        ("x", "t.xlsx", "suffix names no manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(content: str, name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=said):
        rows_of(tmp_path / name)


def test_a_manifest_is_not_read_ahead(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text("".join(f'{{"prompt": "{i}"}}\n' for i in range(100_000)))
    spec = ManifestSpec(path=str(table))
    source = open_manifest(spec)
    taken = 0

    def watched() -> Any:
        nonlocal taken
        for row in source.rows:
            taken += 1
            yield row

    rows = read_rows(type(source)(source.root, watched()), spec, ())
    assert [next(rows).id for _ in range(3)] == [f"row-{i:07d}" for i in (1, 2, 3)]
    assert taken <= 4
