"""Images of any origin as one list: a manifest, a folder of images, a benchmark's table.

What cannot be used is refused, or left out and said so in `Collection.omissions`.
"""

import ast
import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from gen.data.captions import NORMAL, Labels, labels_of
from gen.data.manifest import MANIFEST, METADATA, Row, inside, read_manifest, read_metadata
from gen.data.notes import Notes
from gen.data.prompt_labels import labels_in
from gen.errors import InvalidInput, UnsafeFile

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".dcm"})

# Columns in order of preference. CheXGenBench writes a made image's file beside the path of the
# real image whose prompt it was made from, so the made one goes first.
MADE = ("synthetic_filename", "img_savename")
PATHS = (*MADE, "file_name", "filename", "path", "img_path", "image_path", "image")
PROMPTS = ("annotated_prompt", "prompt", "text", "caption")
LABELS = ("chexpert_labels", "labels_dict")
PATIENTS = ("patient_id", "subject_id")

# The classes of CheXpert (Irvin et al. 2019) by our names; None where no name means the same.
CHEXPERT: dict[str, str | None] = {
    "No Finding": NORMAL,
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Pleural Effusion": "Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Enlarged Cardiomediastinum": None,
    "Fracture": None,
    "Lung Lesion": None,
    "Lung Opacity": None,
    "Pleural Other": None,
    "Support Devices": None,
}
# what may be seen beside "No Finding", by CheXpert's own rule
_NO_FINDING = {"No Finding", "Support Devices"}
_MIMIC_PATIENT = re.compile(r"(?:^|/)p(\d{8})/")

Cells = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One image and what is known of it; None is unknown.

    Args:
        file: where it lies, links followed.
        name: its path relative to the folder.
        prompt: what it was made from, or what describes it.
        labels: stated ones, otherwise those its prompt asks for.
        patient: whose it is; a made image is nobody's.
        split: such as "train" or "test".
        orig_size: true (height, width) before the stored file was squashed to another aspect.
    """

    file: Path
    name: str
    prompt: str | None
    labels: Labels | None
    patient: str | None
    split: str | None
    orig_size: tuple[int, int] | None


@dataclass(frozen=True)
class Collection:
    """Images below `root`, and a line for each kind of thing that was left out or assumed."""

    root: Path
    items: list[Item]
    omissions: list[str]


def read_collection(source: str | Path, split: str | None = None) -> Collection:
    """List the images of a source.

    Args:
        source: a folder with manifest.csv; one with metadata.jsonl (ours, or a Hugging Face
            ImageFolder); a CSV table, or a folder with one, that has a path column and a prompt or
            CheXpert labels (CheXGenBench's and SynthCheX's are); or a folder of pictures alone.
            Paths are relative to the folder that the source is or lies in.
        split: only these rows; None means all.

    Raises:
        InvalidInput: the source or its split holds no image, or its table is damaged.
        UnsafeFile: a path leaves the folder.
    """
    source, notes = Path(source), Notes()
    table = _table_of(source, notes)
    if table is None:
        items = list(_from_pictures(source, split, notes))
    elif table.name == MANIFEST:
        items = list(_from_manifest(table.parent, split, notes))
    else:
        items = list(_from_table(table, split, notes))
    items = _without_repeats(items, notes)
    if table is not None and _is_benchmark(table):
        items = _without_repeated_prompts(items, notes)
    if not items:
        raise InvalidInput(
            f"{source} holds no usable image: {'; '.join(notes.lines()) or 'its table is empty'};"
            " mend the table or name another source"
        )
    return Collection(source if source.is_dir() else source.parent, items, notes.lines())


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder and below, in order, without contact sheets and hidden files.

    Raises:
        InvalidInput: there is none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICTURES
        and path.name != "grid.png"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise InvalidInput(
            f"{folder} holds no picture; name a folder with {', '.join(sorted(PICTURES))} files"
        )
    return found


def _table_of(source: Path, notes: Notes) -> Path | None:
    """The file that describes a source's images; None for pictures alone."""
    if source.is_dir():
        named = [source / name for name in (MANIFEST, METADATA) if (source / name).is_file()]
        named += [path for path in sorted(source.glob("*.csv")) if path not in named]
        tables = [each for each in named if _describes_images(each)]
        if len(tables) > 1 and tables[0].name not in (MANIFEST, METADATA):
            names = ", ".join(path.name for path in tables)
            raise InvalidInput(f"{source} holds several tables ({names}); name one of the files")
        for path in named:
            if path not in tables[:1]:
                notes.add("table(s) of the folder are not read", path.name)
        return tables[0] if tables else None
    if not source.is_file() or (source.suffix.lower() != ".csv" and source.name != METADATA):
        raise InvalidInput(
            f"{source} is neither a folder of images nor a table of them; name a folder,"
            f" a CSV file or a {METADATA}"
        )
    if not _describes_images(source):
        raise InvalidInput(
            f"{source} does not say where its images are or what they show; it needs one of the"
            f" columns {', '.join(PATHS)} and one of {', '.join((*PROMPTS, *LABELS))}"
        )
    return source


def _describes_images(table: Path) -> bool:
    if table.name in (MANIFEST, METADATA):
        return True
    columns = _columns(table)
    return bool(columns.intersection(PATHS) and columns.intersection((*PROMPTS, *LABELS)))


def _columns(table: Path) -> set[str]:
    with table.open("rb") as stream:
        first = stream.readline(2**16).decode("utf-8-sig", errors="replace")
    return set(next(csv.reader([first]), []))


def _from_pictures(root: Path, split: str | None, notes: Notes) -> Iterator[Item]:
    for path in root.glob(f"*/{METADATA}"):
        notes.add(
            f"{METADATA} file(s) below the folder are not read: name their folder instead",
            path.relative_to(root).as_posix(),
        )
    for path in _of_split(pictures_in(root), lambda _: None, split, root):
        name = path.relative_to(root).as_posix()
        labels = _asked_for(name, None, notes)
        yield Item(_safe(root, name), name, None, labels, None, None, None)


def _from_manifest(root: Path, split: str | None, notes: Notes) -> Iterator[Item]:
    for row in _of_split(read_manifest(root), lambda row: row.split, split, root / MANIFEST):
        size = (row.orig_height, row.orig_width) if row.orig_height and row.orig_width else None
        yield Item(
            _safe(root, row.file),
            PurePath(row.file).as_posix(),
            row.prompt,
            _manifest_labels(row, notes),
            row.patient_id,
            row.split,
            size,
        )


def _manifest_labels(row: Row, notes: Notes) -> Labels | None:
    if not row.findings:
        return _asked_for(row.file, row.prompt, notes)
    fields = {"file": row.file, "findings": "|".join(row.findings)}
    known = {name: str(getattr(row, name) or "") for name in ("view", "age", "sex")}
    try:
        return labels_of({**fields, **known})
    except InvalidInput:
        notes.add(
            "image(s) have a finding that gen.data.captions has no name for, and no labels here",
            f"{row.file} ({fields['findings']})",
        )
        return None


def _from_table(table: Path, split: str | None, notes: Notes) -> Iterator[Item]:
    root = table.parent
    rows = _json_lines(table, notes) if table.name == METADATA else _csv_rows(table)
    column = _path_column(table, rows, notes)
    for row in _of_split(rows, lambda row: _text(row, ("split",)), split, table):
        name = _text(row, (column,))
        if name is None or not _safe(root, name).is_file():
            notes.add("row(s) name a file that does not exist", name or "an empty cell")
            continue
        yield Item(
            _safe(root, name),
            PurePath(name).as_posix(),
            _text(row, PROMPTS),
            _table_labels(name, row, notes),
            None if column in MADE else _patient(name, row),
            _text(row, ("split",)),
            None,
        )


def _json_lines(table: Path, notes: Notes) -> list[Cells]:
    """The rows of metadata.jsonl; other writers may leave out the last end of line."""
    rows = dict(read_metadata(table.parent))
    tail = table.read_text(encoding="utf-8").split("\n")[-1]
    if tail.strip():
        try:
            last = json.loads(tail)
            rows[last["file_name"]] = last
        except (ValueError, KeyError, TypeError):
            notes.add("torn line at the end of the table is not read", tail[:40])
    return list(rows.values())


def _csv_rows(table: Path) -> list[Cells]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows: list[Cells] = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"{table} is not a CSV file in UTF-8; save it as one") from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InvalidInput(
                f"{table}, row {number}: it has more or fewer cells than the first line; mend it"
            )
    return rows


def _path_column(table: Path, rows: list[Cells], notes: Notes) -> str:
    columns = [name for name in PATHS if rows and name in rows[0]]
    for other in columns[1:]:
        notes.add(f"path column(s) of {table.name} are not read, {columns[0]} is", other)
    return columns[0] if columns else PATHS[0]


def _table_labels(name: str, row: Cells, notes: Notes) -> Labels | None:
    column = next((each for each in LABELS if row.get(each) not in (None, "", "nan")), None)
    if column is None:
        return _asked_for(name, _text(row, PROMPTS), notes)
    try:
        stated = _chexpert(row[column])
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        notes.add(
            f"row(s) have {column} that are no dictionary of 1, 0, -1 and nan, and no labels here",
            f"{name} ({str(row[column])[:40]})",
        )
        return None
    view = str(row.get("view")).upper()
    return _named(name, stated, view if view in ("PA", "AP") else None, notes)


def _chexpert(cell: Any) -> dict[str, float]:
    """Class -> 1, 0, -1 or nan, of a dictionary as JSON or Python writes it."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = ast.literal_eval(re.sub(r"\bnan\b", "None", cell))
    stated = {str(k): math.nan if v is None else float(v) for k, v in dict(cell).items()}
    if any(v not in (1, 0, -1) and not math.isnan(v) for v in stated.values()):
        raise ValueError("no label of CheXpert")
    return stated


def _named(name: str, stated: Mapping[str, float], view: str | None, notes: Notes) -> Labels | None:
    """CheXpert's labels by our names; None where they are none or contradict one another."""
    positive = {each for each, value in stated.items() if value == 1}
    for each in sorted(stated):
        if stated[each] == -1:
            notes.add(f"image(s) of uncertain {each} count as without it", name)
        if each in positive and CHEXPERT.get(each) is None:
            notes.add(f"image(s) are labelled {each}, which has no name here and is left out", name)
    if "No Finding" in positive and positive - _NO_FINDING:
        notes.add(
            "image(s) are labelled No Finding beside a finding, and have no labels here", name
        )
        return None
    found = {ours for each in positive if (ours := CHEXPERT.get(each))}
    if not found:
        notes.add("image(s) state no finding that has a name here, and have no labels here", name)
        return None
    return Labels(tuple(sorted(found)), view)


def _asked_for(name: str, prompt: str | None, notes: Notes) -> Labels | None:
    """Labels of an image that states none."""
    if prompt is None:
        notes.add("image(s) have neither labels nor a prompt", name)
        return None
    notes.add(
        "image(s) take their labels from their prompts, where no known finding means normal", name
    )
    return labels_in(prompt)


def _of_split(
    rows: list[T], split_of: Callable[[T], str | None], split: str | None, source: Path
) -> list[T]:
    if split is None:
        return rows
    chosen = [row for row in rows if split_of(row) == split]
    if not chosen:
        known = sorted({each for row in rows if (each := split_of(row))})
        raise InvalidInput(
            f"split is {split!r}, but {source} has {', '.join(known) or 'no splits'}; name another"
            " split, or none for all images"
        )
    return chosen


def _without_repeats(items: list[Item], notes: Notes) -> list[Item]:
    """Each file once: a repeated one would narrow every estimate without adding to it."""
    seen: set[Path] = set()
    kept = []
    for item in items:
        if item.file in seen:
            notes.add("row(s) repeat a file; its first row counts", item.name)
        else:
            kept.append(item)
        seen.add(item.file)
    return kept


def _is_benchmark(table: Path) -> bool:
    """Whether a table lists the real images of CheXGenBench."""
    columns = _columns(table) if table.suffix.lower() == ".csv" else set()
    return "annotated_prompt" in columns and not columns.intersection(MADE)


def _without_repeated_prompts(items: list[Item], notes: Notes) -> list[Item]:
    """Each prompt once, as CheXGenBench compares: one made image stands for one prompt."""
    first: dict[str | None, Item] = {}
    for item in items:
        if first.setdefault(item.prompt, item) is not item and item.prompt is not None:
            notes.add("real image(s) repeat a prompt, whose first image counts", item.name)
    return [item for item in items if item.prompt is None or first[item.prompt] is item]


def _patient(name: str, row: Cells) -> str | None:
    """Of a column, or of a path of MIMIC-CXR: files/p10/p10000032/s50414267/x.jpg."""
    in_path = _MIMIC_PATIENT.search(PurePath(name).as_posix())
    return _text(row, PATIENTS) or (in_path.group(1) if in_path else None)


def _text(row: Cells, columns: tuple[str, ...]) -> str | None:
    """The first of the columns that holds something."""
    cells = (row.get(each) for each in columns)
    return next((str(each) for each in cells if each is not None and str(each).strip()), None)


def _safe(root: Path, name: str) -> Path:
    """root/name, or UnsafeFile if it leaves the folder or tries to."""
    if ".." in re.split(r"[/\\]", name):
        raise UnsafeFile(f"{name!r} climbs with '..', but files are named from {root} down")
    return inside(root, name)
