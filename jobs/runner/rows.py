"""The rows of a manifest in one vocabulary: an id, what shall be shown, and of whom.

Names of columns are known by what data sets call them, or said in `manifest.columns`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import Any

from gen.data.captions import Labels, canonical, labels_of
from gen.data.collection import PATHS, PATIENTS, PROMPTS
from gen.data.manifest import inside
from gen.data.prompt_labels import labels_in
from gen.errors import InvalidInput, UnsafeFile
from gen.metrics.groups import groups_of
from jobs.runner.readers import Cells, Source, Unreadable
from jobs.runner.spec import ManifestSpec

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "image": ("image", "file", *PATHS),
    "mask": ("mask", "mask_file", "mask_files"),
    "prompt": PROMPTS,
    "labels": ("labels", "findings"),
    "sex": ("sex",),
    "age": ("age",),
    "view": ("view",),
    "patient": PATIENTS,
    "split": ("split",),
    "n": ("n",),
    "seed": ("seed",),
    "params": ("params",),
    "negative_prompt": ("negative_prompt",),
}
MAX_N = 100_000
ADULT_YEARS = 18
_LOOKED_AT = 1000  # unreadable rows before one that can be read


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        number: from 1.
        id: decides the names and seeds of what is made of it.
        error: why nothing can be; the rest is empty then.
        prompt, image, mask: None if it has none; files are named from the manifest's root.
        labels: names of `gen.data.captions`, or as they are written where they are not of chests.
        group: "sex", "age_group" and "view", each if known.
        n: results; None is the job's.
        seed: of the first result; None leaves it to the id.
        fields: of the task's spec.
    """

    number: int
    id: str
    error: str | None = None
    prompt: str | None = None
    image: str | None = None
    mask: str | None = None
    labels: tuple[str, ...] = ()
    group: dict[str, str] = field(default_factory=dict)
    patient: str | None = None
    n: int | None = None
    seed: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_rows(
    source: Source, spec: ManifestSpec, needs: Sequence[str], chest: bool = True
) -> Iterator[Row]:
    """The rows of a split, in order, one in memory at a time.

    Args:
        needs: fields of which a manifest must have one, or the task could make nothing.
        chest: labels are findings of chest X-rays, of which prompts tell, and are told by them.

    Raises:
        InvalidInput: a column, or the split, is not there, or there is no row.
    """
    rows = iter(source.rows)
    head = list(islice(rows, 1))
    while head and isinstance(head[-1], Unreadable) and len(head) < _LOOKED_AT:
        head += islice(rows, 1)
    first = next((each for each in head if not isinstance(each, Unreadable)), None)
    if first is None:
        raise InvalidInput(f"{spec.path} holds no row that can be read; name another manifest")
    columns = _columns(first, spec, needs)
    reader = _Reader(columns, source.root, spec.split, chest)
    found = False
    for number, cells in enumerate(chain(head, rows), 1):
        row = reader.row(number, cells)
        if row is not None:
            found = True
            yield row
    if not found:
        raise InvalidInput(
            f"manifest.split is {spec.split!r}, but {spec.path} has the splits"
            f" {', '.join(sorted(reader.splits))}; name one of them, or none for all rows"
        )


def _columns(first: Cells, spec: ManifestSpec, needs: Sequence[str]) -> dict[str, str]:
    """The column of each field, by the first row."""
    for name, column in spec.columns.items():
        if column not in first:
            raise InvalidInput(
                f"manifest.columns.{name} is {column!r}, but the columns of {spec.path} are"
                f" {', '.join(map(str, first))}; name one of them"
            )
    known = {
        name: next(alias for alias in aliases if alias in first)
        for name, aliases in ALIASES.items()
        if any(alias in first for alias in aliases)
    }
    columns = {**known, **spec.columns}
    if needs and not any(name in columns for name in needs):
        raise InvalidInput(
            f"{spec.path} has no column for {' or '.join(needs)}, but the task needs one; its"
            f" columns are {', '.join(map(str, first))}. Say which it is in manifest.columns"
        )
    if spec.split is not None and "split" not in columns:
        raise InvalidInput(f"manifest.split is {spec.split!r}, but {spec.path} has no splits")
    return columns


class _Reader:
    """Turns cells into rows."""

    def __init__(
        self, columns: Mapping[str, str], root: Path, split: str | None, chest: bool
    ) -> None:
        self._columns = columns
        self._root = root
        self._split = split
        self._chest = chest
        self.splits: set[str] = set()

    def row(self, number: int, cells: Cells | Unreadable) -> Row | None:
        """None if it is of another split."""
        fallback = f"row-{number:07d}"
        if isinstance(cells, Unreadable):
            return Row(number, fallback, cells.reason)
        if self._split is not None and (split := self._text(cells, "split")) != self._split:
            if len(self.splits) < 20:
                self.splits.add(str(split))
            return None
        image = self._text(cells, "image")
        name = self._text(cells, "id") or (image and PurePath(image).as_posix()) or fallback
        try:
            return self._read(number, name, cells)
        except (InvalidInput, ValueError) as error:
            return Row(number, name, str(error))

    def _read(self, number: int, name: str, cells: Cells) -> Row:
        prompt, image = self._text(cells, "prompt"), self._file(cells, "image")
        labels = self._labels(cells, prompt, image)
        names = labels.findings if labels else tuple(self._names(cells))
        if prompt is None and labels is not None and self._chest and self._names(cells):
            prompt = canonical(labels)
        return Row(
            number,
            name,
            prompt=prompt,
            image=image,
            mask=self._file(cells, "mask"),
            labels=names,
            group=_group(labels) if self._chest else {},
            patient=self._text(cells, "patient"),
            n=self._whole(cells, "n", 0, MAX_N),
            seed=self._whole(cells, "seed", 0, 2**63 - 1),
            fields=self._fields(cells),
        )

    def _cell(self, cells: Cells, name: str) -> Any:
        """Of a field; rows of JSON need not all have what the first one has."""
        column = self._columns.get(name)
        if column is None:
            column = next((alias for alias in ALIASES[name] if alias in cells), None)
        return None if column is None else cells.get(column)

    def _text(self, cells: Cells, name: str) -> str | None:
        value = self._cell(cells, name)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, list | dict) or not str(value).strip():
            return None
        return str(value)

    def _names(self, cells: Cells) -> list[str]:
        value = self._cell(cells, "labels")
        parts = value if isinstance(value, list) else str(value or "").split("|")
        return [str(part).strip() for part in parts if str(part).strip()]

    def _labels(self, cells: Cells, prompt: str | None, image: str | None) -> Labels | None:
        """What a chest shows, as labels say it, or else the prompt."""
        if not self._chest:
            return None
        known = {name: self._text(cells, name) or "" for name in ("view", "sex", "age")}
        if names := self._names(cells):
            return labels_of({"file": image or "", "findings": "|".join(names), **known})
        if prompt is None:
            return None
        asked = labels_in(prompt)
        age = float(known["age"]) if known["age"] else asked.age
        return replace(
            asked, view=known["view"] or asked.view, sex=known["sex"] or asked.sex, age=age
        )

    def _file(self, cells: Cells, name: str) -> str | None:
        """A path that stays inside the root."""
        text = self._text(cells, name)
        if text is None:
            return None
        if ".." in re.split(r"[/\\]", text):
            raise UnsafeFile(f"{text!r} climbs with '..', but files are named from the root down")
        inside(self._root, text)
        return PurePath(text).as_posix()

    def _whole(self, cells: Cells, name: str, least: int, most: int) -> int | None:
        text = self._text(cells, name)
        if text is None:
            return None
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise InvalidInput(f"{name} is {text[:40]!r}, but must be a number, {least} to {most}")
        return value

    def _fields(self, cells: Cells) -> dict[str, Any]:
        """Of the task's spec: those in `params`, and those of columns that are named for them."""
        params = self._cell(cells, "params") or {}
        if isinstance(params, str):
            try:
                params = json.loads(params)
            except ValueError as error:
                raise InvalidInput("params is no JSON; write an object") from error
        if not isinstance(params, dict):
            raise InvalidInput("params is no object; write {name: value}")
        known = ALIASES.keys() - {"negative_prompt"}
        named = {k: cells.get(column) for k, column in self._columns.items() if k not in known}
        return {**params, **{k: _value(v) for k, v in named.items() if v not in (None, "")}}


def _value(cell: Any) -> Any:
    """A cell of a CSV as what it says: a number, true, a list, or words."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _group(labels: Labels | None) -> dict[str, str]:
    if labels is None:
        return {}
    if labels.age is not None and labels.age < ADULT_YEARS:
        labels = replace(labels, child=True)
    names = {axis: names for axis, names in groups_of(labels).items() if axis != "finding"}
    return {axis.replace(" ", "_"): each[0] for axis, each in names.items()}
