"""Data sets as folders: manifest.csv of labelled pictures in, metadata.jsonl of made ones out."""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gen.data.atomic import atomic_file, sync_folder
from gen.errors import InvalidInput, UnsafeFile

MANIFEST = "manifest.csv"
METADATA = "metadata.jsonl"
_LONGEST_LINE = 2**17  # several times the longest record


class Box(BaseModel):
    """A finding's rectangle in pixels of the stored file, from its upper left corner."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: str
    x: float
    y: float
    w: float = Field(gt=0)
    h: float = Field(gt=0)


def _none_if_empty(cell: object) -> object:
    return None if cell == "" else cell


def _split(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    return tuple(part.strip() for part in cell.split("|") if part.strip())


def _boxes(cell: object) -> object:
    return json.loads(cell or "[]") if isinstance(cell, str) else cell


Text = Annotated[str | None, BeforeValidator(_none_if_empty)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Side = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none_if_empty)]
Years = Annotated[Annotated[float, Field(ge=0, le=130)] | None, BeforeValidator(_none_if_empty)]


class Row(BaseModel):
    """One labelled picture; an empty cell is None, an absent optional column too.

    `file` and `mask_files` are relative to the folder; `orig_width` and `orig_height` tell the
    aspect before the stored file was squashed or shrunk.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    file: str = Field(min_length=1)
    split: Literal["train", "val", "test"]
    findings: Names
    prompt: Text = None
    view: Text = None
    age: Years = None
    sex: Annotated[Literal["M", "F"] | None, BeforeValidator(_none_if_empty)] = None
    patient_id: Text = None
    original_dataset: Text = None
    licence: Text = None
    text: Text = None
    text_kind: Text = None
    width: Side = None
    height: Side = None
    orig_width: Side = None
    orig_height: Side = None
    boxes: Annotated[tuple[Box, ...], BeforeValidator(_boxes)] = ()
    mask_files: Names = ()


_REQUIRED = tuple(name for name, field in Row.model_fields.items() if field.is_required())


def read_manifest(folder: str | Path) -> list[Row]:
    """Read <folder>/manifest.csv; every file it names must exist inside the folder.

    Raises:
        InvalidInput: a column, cell or file is missing or wrong; the message names the line.
        UnsafeFile: a path leaves the folder.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            _check_columns(path, reader.fieldnames or ())
            rows = [_row(path, reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be opened: {error.strerror}; name a folder that holds {MANIFEST}"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a CSV file in UTF-8; save it as one") from error
    _check_files(folder, rows)
    return rows


def inside(folder: str | Path, file: str) -> Path:
    """Return folder/file, or raise UnsafeFile if it lies elsewhere, links followed."""
    root = Path(folder).resolve()
    try:
        path = (root / file).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise UnsafeFile(f"{file!r} is no usable path; name a file inside {folder}") from error
    if Path(file).is_absolute() or not path.is_relative_to(root) or path == root:
        raise UnsafeFile(f"{file!r} leaves {folder}, but only files inside it are used; move it in")
    return path


def write_metadata(
    folder: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False
) -> Path:
    """Write <folder>/metadata.jsonl at once: it appears whole or not at all."""
    lines = _lines(folder, rows)
    path = Path(folder) / METADATA
    with atomic_file(path, overwrite=overwrite) as stream:
        stream.write(lines)
    return path


def append_metadata(folder: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Add lines to <folder>/metadata.jsonl, after the pictures they are about exist.

    One process at a time may append. A line that an earlier, killed one left torn is cut off.
    """
    lines = _lines(folder, rows)
    path = Path(folder) / METADATA
    with path.open("ab+") as stream:
        _cut_torn_line(path, stream.fileno())
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(path.parent)
    return path


def read_metadata(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Return <folder>/metadata.jsonl by file name; the last line about a file counts."""
    path = Path(folder) / METADATA
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last is torn
        rows = [json.loads(line) for line in lines]
        return {row["file_name"]: row for row in rows}
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be opened: {error.strerror}; check the folder"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} is damaged, but every line must be a JSON object with file_name; write "
            "it again"
        ) from error


def _lines(folder: str | Path, rows: Iterable[Mapping[str, Any]]) -> bytes:
    if not Path(folder).is_dir():
        raise InvalidInput(f"{folder} is not a folder, but {METADATA} is written into one; make it")
    return "".join(_line(folder, row) for row in rows).encode()


def _line(folder: str | Path, row: Mapping[str, Any]) -> str:
    file_name = row.get("file_name")
    if not isinstance(file_name, str) or not inside(folder, file_name).is_file():
        raise InvalidInput(
            f"file_name is {file_name!r}, but a line of {METADATA} is about a file that exists in "
            f"{folder}; write the picture first"
        )
    return json.dumps(dict(row), sort_keys=True, allow_nan=False) + "\n"


def _cut_torn_line(path: Path, handle: int) -> None:
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - _LONGEST_LINE))
        tail = stream.read()
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(handle, end - torn)


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    missing = [name for name in _REQUIRED if name not in set(columns)]
    if missing:
        raise InvalidInput(
            f"{path} lacks the column {', '.join(missing)}; its first line must name at least "
            f"{', '.join(_REQUIRED)}"
        )


def _row(path: Path, line: int, cells: Mapping[str | None, Any]) -> Row:
    if None in cells or None in cells.values():
        raise InvalidInput(f"{path}, line {line}: it has more or fewer cells than the first line")
    try:
        return Row.model_validate(cells)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(map(str, first["loc"]))
        value = str(cells.get(str(first["loc"][0])))[:40]
        raise InvalidInput(
            f"{path}, line {line}: {column} is {value!r}, but: {first['msg']}; correct the cell"
        ) from error


def _check_files(folder: Path, rows: Iterable[Row]) -> None:
    named = (file for row in rows for file in (row.file, *row.mask_files))
    missing = [file for file in named if not inside(folder, file).is_file()]
    if missing:
        raise InvalidInput(
            f"{folder / MANIFEST} names {len(missing)} file(s) that do not exist, first "
            f"{missing[0]!r}; remove their lines or restore them"
        )
