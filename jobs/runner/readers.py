"""Manifests of any form, row by row: tables, datalists and folders.

A row is a mapping of columns, or `Unreadable`, since one bad line must not stop a million good
ones. What is wrong with the whole is raised.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from gen.data.limits import read_start
from gen.data.manifest import MANIFEST, METADATA
from gen.errors import InvalidInput
from jobs.runner.spec import ManifestSpec

TABLES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl",
          ".ndjson": "jsonl", ".json": "monai"}  # fmt: skip
METADATA_TABLES = (METADATA, "metadata.csv")
PICTURES = (".png", ".jpg", ".jpeg")
SPLITS = {"training": "train", "validation": "val", "testing": "test"}  # of a datalist, by ours
ROWS_AT_ONCE = 1000  # of a Parquet file, in memory
_DICOM_START = 132

Cells = Mapping[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """A row that cannot be read, and why."""

    reason: str


Rows = Iterator[Cells | Unreadable]


@dataclass(frozen=True)
class Source:
    """Rows, and the folder that their files are named from."""

    root: Path
    rows: Rows


def open_manifest(spec: ManifestSpec) -> Source:
    """Begin to read a manifest.

    Raises:
        InvalidInput: it is not there, of no known form, or not of the form that is named.
    """
    path = Path(spec.path)
    if not path.exists():
        raise InvalidInput(f"manifest.path is {spec.path!r}, but that does not exist; check it")
    form = _form_of(path) if spec.format == "auto" else spec.format
    if path.is_dir() and form == "csv":
        path = path / MANIFEST
    if path.is_dir() != (form in ("imagefolder", "dicom", "pictures")):
        kind = "folder" if path.is_dir() else "file"
        raise InvalidInput(
            f"manifest.format is {form!r}, but {path} is a {kind}; name what fits, or let format be"
            " auto"
        )
    return Source(root_of(spec), _READERS[form](path))


def root_of(spec: ManifestSpec) -> Path:
    """The folder that files are named from. Raises InvalidInput if it is none."""
    path = Path(spec.path)
    root = Path(spec.root) if spec.root else (path if path.is_dir() else path.parent)
    if not root.is_dir():
        raise InvalidInput(f"manifest.root is {str(root)!r}, but that is no folder; check it")
    return root.resolve()


def _form_of(path: Path) -> str:
    if not path.is_dir():
        if path.name in METADATA_TABLES and path.suffix == ".jsonl":
            return "jsonl"
        form = TABLES.get(path.suffix.lower())
        if form is None:
            raise InvalidInput(
                f"manifest.path is {str(path)!r}, whose suffix names no manifest; use one of"
                f" {', '.join(TABLES)}, or name manifest.format"
            )
        return form
    if (path / MANIFEST).is_file():
        return "csv"
    return "imagefolder" if _metadata_tables(path) else "pictures"


def _csv_rows(path: Path) -> Rows:
    with _opened(path, "utf-8-sig") as stream:
        reader = csv.DictReader(stream, strict=True)
        if not reader.fieldnames:
            raise InvalidInput(f"{path} is empty, but its first line must name the columns")
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Unreadable(f"the line is no CSV: {error}")
                continue
            if cells is None:
                return
            yield _csv_row(cells)


def _csv_row(cells: dict[str | Any, Any]) -> Cells | Unreadable:
    if None in cells or None in cells.values():
        return Unreadable("it has more or fewer cells than the first line")
    if any("\udc80" <= letter <= "\udcff" for cell in cells.values() for letter in cell):
        return Unreadable("it is not in UTF-8")
    return cells


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                yield _json_row(line)


def _json_row(line: bytes) -> Cells | Unreadable:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Unreadable("the line is no JSON")
    return row if isinstance(row, dict) else Unreadable("the line is no JSON object")


def _parquet_rows(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        # pictures inside a table would fill the memory; rows name files
        columns = [each.name for each in file.schema_arrow if not _holds_bytes(each.type, pa)]
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} is no Parquet file, or is damaged; write it again") from error


def _holds_bytes(kind: Any, pa: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type, pa) for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _metadata_tables(folder: Path) -> list[Path]:
    """Of a Hugging Face ImageFolder: its own table, or one in each folder of a split."""
    for pattern in ("", "*/"):
        for name in METADATA_TABLES:
            if found := sorted(folder.glob(pattern + name)):
                return found
    return []


def _imagefolder_rows(folder: Path) -> Rows:
    tables = _metadata_tables(folder)
    if not tables:
        raise InvalidInput(f"{folder} is no ImageFolder: it has no {' or '.join(METADATA_TABLES)}")
    for table in tables:
        below = table.parent.relative_to(folder)
        reader = _json_lines if table.suffix == ".jsonl" else _csv_rows
        for row in reader(table):
            yield row if isinstance(row, Unreadable) else _below(row, below)


def _below(row: Cells, folder: PurePath) -> Cells:
    """A row of the table of a split's folder."""
    if not folder.parts:
        return row
    name = row.get("file_name")
    moved = {"file_name": (folder / name).as_posix()} if isinstance(name, str) else {}
    return {"split": folder.name, **row, **moved}


def _monai_rows(path: Path) -> Rows:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no JSON; write the datalist again") from error
    sections = {k: v for k, v in content.items() if isinstance(v, list)} if _is_map(content) else {}
    if not sections:
        raise InvalidInput(f"{path} is no MONAI datalist: it has no list such as training")
    for section, entries in sections.items():
        for entry in entries:
            yield _monai_row(entry, SPLITS.get(section, section))


def _monai_row(entry: Any, split: str) -> Cells | Unreadable:
    row = {"image": entry} if isinstance(entry, str) else entry
    if not _is_map(row):
        return Unreadable("the entry of the datalist is no object")
    image = row.get("image")
    if isinstance(image, list) and len(image) == 1:
        row = {**row, "image": image[0]}
    label = row.get("label")
    if isinstance(label, str):  # a mask's file, or the name of a class
        is_file = label.lower().endswith((*PICTURES, ".dcm"))
        row = {**row, "mask" if is_file else "labels": label}
    return {"split": split, **row}


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _walk(folder: Path, wanted: Callable[[Path], bool]) -> Rows:
    """Files below a folder in order, a folder at a time, without hidden ones."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and wanted(path):
                yield {"image": path.relative_to(folder).as_posix()}


def is_dicom(path: Path) -> bool:
    """By its name, or as archives export: without a suffix."""
    if path.suffix.lower() == ".dcm":
        return True
    try:
        return not path.suffix and read_start(path, _DICOM_START)[128:] == b"DICM"
    except InvalidInput:
        return False


def _dicom_rows(folder: Path) -> Rows:
    return _walk(folder, is_dicom)


def _picture_rows(folder: Path) -> Rows:
    return _walk(folder, lambda path: path.suffix.lower() in PICTURES or is_dicom(path))


def _opened(path: Path, encoding: str) -> Any:
    """Bytes that are no UTF-8 become surrogates, which are told from letters row by row."""
    return path.open(newline="", encoding=encoding, errors="surrogateescape")


_READERS: dict[str, Callable[[Path], Rows]] = {
    "csv": _csv_rows,
    "parquet": _parquet_rows,
    "jsonl": _json_lines,
    "imagefolder": _imagefolder_rows,
    "monai": _monai_rows,
    "dicom": _dicom_rows,
    "pictures": _picture_rows,
}
