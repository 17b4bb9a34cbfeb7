"""The results of a folder: which scans are finished, under which name, and what was found."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gen.data.atomic import sync_folder
from gen.errors import InvalidInput
from jobs.anomaly.files import SUFFIXES, most_unusual
from jobs.anomaly.mapper import Mapped

RESULTS = "results.jsonl"
_BEGUN = ".begun"  # names whose files are ours, though they may be unfinished


class Results:
    """`results.jsonl` of a folder, for one process at a time; the last line of a scan counts.

    Args:
        out: made if it is not there.
        analysis: everything but the scan that decides the results.
        overwrite: replace what was made with other settings, or from a file that changed.

    Raises:
        InvalidInput: the folder cannot be used.
    """

    def __init__(self, out: Path, analysis: str, overwrite: bool = False) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"out is {out}, which is no folder; name another") from error
        self.out, self._overwrite = out, overwrite
        self.analysis = hashlib.sha256(analysis.encode()).hexdigest()
        self._rows = {row["key"]: row for row in _lines(out / RESULTS) if "key" in row}
        named = [*_lines(out / _BEGUN), *self._rows.values()]
        self._owners = {row["name"]: row["key"] for row in named}
        self._names = {row["key"]: row["name"] for row in named}

    def check(self, keys: list[str]) -> None:
        """Refuse scans that have results of other settings.

        Raises:
            InvalidInput: there are such.
        """
        rows = [self._rows[key] for key in keys if key in self._rows]
        other = [row for row in rows if row["analysis"] != self.analysis]
        if other and not self._overwrite:
            raise InvalidInput(
                f"out is {self.out}, which has results of {len(other)} of these scans, made with"
                " other settings; name another folder, or pass --overwrite to replace them"
            )

    def finished(self, key: str, sha256: str) -> dict[str, Any] | None:
        """The row of a scan, if it was mapped with these settings and its files are there.

        Raises:
            InvalidInput: its file is another one now.
        """
        row = self._rows.get(key)
        if row is None or row["analysis"] != self.analysis:
            return None
        if row["source_sha256"] != sha256:
            if self._overwrite:
                return None
            raise InvalidInput(
                "it has changed since its results were made; pass --overwrite to replace them"
            )
        there = all((self.out / Path(file).name).is_file() for file in row["files"].values())
        return row if there else None

    def begin(self, key: str, stem: str, parent: str) -> str:
        """The name of a scan's files: its stem, with its folder's before it if that is taken.

        Raises:
            InvalidInput: files that are not ours lie there.
        """
        if key in self._names:
            return self._names[key]
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        names = (stem, f"{parent}-{stem}", f"{stem}-{digest}")
        name = next(each for each in names if each not in self._owners)
        foreign = [name + suffix for suffix in SUFFIXES.values()]
        foreign = [file for file in foreign if (self.out / file).exists()]
        if foreign and not self._overwrite:
            raise InvalidInput(
                f"{foreign[0]} exists in the folder of results and is not overwritten; name"
                " another folder, or pass --overwrite"
            )
        _append(self.out / _BEGUN, {"name": name, "key": key})
        self._owners[name], self._names[key] = key, name
        return name

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Note that a scan is finished, after its files exist; returns the row as it is kept."""
        row = {**row, "analysis": self.analysis}
        self._rows[row["key"]] = row
        _append(self.out / RESULTS, row)
        return row


def row_of(
    source: str,
    key: str,
    name: str,
    mapped: Mapped,
    files: dict[str, str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What was found in a scan, as programs read it.

    Boxes are x, y, w, h in pixels of the source, the most unusual first; of frames or slices the
    score is that of the most unusual, each has its own in `scores`, and boxes say theirs.
    """
    scan = mapped.scan
    boxes = [
        {
            **({"slice": index} if scan.stacked else {}),
            **region.as_json(),
        }
        for index, found in enumerate(mapped.maps)
        for region in found.regions
    ]
    scores = [found.score for found in mapped.maps]
    of_slices = {"slice": most_unusual(mapped), "scores": scores} if scan.stacked else {}
    return {
        "source": source,
        "score": max(scores),
        "boxes": sorted(boxes, key=lambda box: -float(box["score"])),
        "map": files["map"],
        **of_slices,
        "height": scan.planes.shape[1],
        "width": scan.planes.shape[2],
        **settings,
        "files": files,
        "source_sha256": scan.sha256,
        "name": name,
        "key": key,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file; one that a crash cut short is left out."""
    rows = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("ab+") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        torn = stream.read(1) not in (b"", b"\n")  # by a crash
        stream.write((b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(path.parent)
