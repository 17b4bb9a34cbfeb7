"""Images of tissue that `medphantom evaluate large` reads, and at which magnification."""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.metrics.views import View

SLIDES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".ndpi", ".scn", ".mrxs"})
# What a record of `medphantom large` says of its cost, and is passed on.
COSTS = ("network_calls_per_megapixel", "seconds", "peak_memory_mb")


@dataclass(frozen=True)
class Picture:
    """A file at its own magnification, and at that of the comparison.

    Args:
        path: of the file.
        own: as it is stored.
        view: at the magnification of the comparison.
        sha256: of the file: the same image is known again under another name.
        row: what `medphantom large` printed of it, if that was given.
    """

    path: Path
    own: "View"
    view: "View"
    sha256: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Spacings:
    """Microns a pixel of files that do not say it themselves, by pattern of their names."""

    patterns: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Spacings":
        """Of PATTERN=MICRONS each.

        Raises:
            InvalidInput: one is of another form.
        """
        patterns = []
        for text in texts:
            pattern, _, number = text.rpartition("=")
            try:
                microns = float(number)
            except ValueError:
                microns = 0.0
            if not pattern or not 0 < microns < 1000:
                raise InvalidInput(
                    f"spacing is {text!r}, but must be PATTERN=MICRONS, as 'tiles/kather_*=0.495'"
                )
            patterns.append((pattern, microns))
        return cls(tuple(patterns))

    def of_file(self, path: Path) -> float | None:
        """The first pattern's that fits the end of a path."""
        name = path.as_posix()
        fits = (um for pattern, um in self.patterns if fnmatch(name, f"*{pattern}"))
        return next(fits, None)


def read_rows(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Files of images, each with its record; a .jsonl holds records of `medphantom large`.

    Raises:
        InvalidInput: a line is no record, or names a file that is not there.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        if path.suffix != ".jsonl":
            found.append((path, {}))
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = _row(path, number, line)
                places = (Path(row["file"]), path.parent / row["file"])
                file = next((each for each in places if each.is_file()), None)
                if file is None:
                    raise InvalidInput(
                        f"{path}, line {number}, names {row['file']}, which is not there; run this"
                        " where `medphantom large` ran"
                    )
                found.append((file, row))
    return found


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("file"), str):
        raise InvalidInput(
            f"{path}, line {number}, is no record of an image; give what `medphantom large` printed"
        )
    return row


def files_of(source: Path, split: str) -> list[Path]:
    """A file, or the files of a folder: those of a split if it has a manifest.csv.

    Raises:
        InvalidInput: there is none.
    """
    if source.is_file():
        return [source]
    manifest = source / "manifest.csv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("split") == split]
        files = [source / row["file"] for row in rows]
    else:
        files = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SLIDES]
    if not files:
        raise InvalidInput(f"{source} holds no image of split {split!r}; name another folder")
    return files


class Gallery:
    """Opens files at one magnification, and remembers what it assumed and left out.

    Args:
        stack: closes them.
        spacings: of files that do not say it.
        microns_per_pixel: of the comparison; None is that of the first file opened, or 0.5.
    """

    def __init__(
        self, stack: ExitStack, spacings: Spacings, microns_per_pixel: float | None
    ) -> None:
        self._stack, self._spacings = stack, spacings
        self.microns_per_pixel = microns_per_pixel
        self._notes: dict[str, list[str]] = {}

    def open(
        self, rows: Sequence[tuple[Path, dict[str, Any]]], what: str, strict: bool = False
    ) -> list[Picture]:
        """Those that can be compared.

        Args:
            rows: files and their records.
            what: they are, for messages.
            strict: leave out what neither says its magnification nor fits a pattern.

        Raises:
            InvalidInput: none is left.
        """
        found = [each for path, row in rows if (each := self._open(path, row, strict)) is not None]
        if not found:
            raise InvalidInput(
                f"none of {len(rows)} {what} can be compared: {'; '.join(self.lines())}; name"
                " others, or choose another --microns-per-pixel or --spacing"
            )
        return found

    def _open(self, path: Path, row: dict[str, Any], strict: bool) -> Picture | None:
        from gen.data.slide import open_slide
        from gen.metrics.views import shrunk, view_of

        slide = self._stack.enter_context(open_slide(path))
        microns = slide.microns_per_pixel or self._spacings.of_file(path)
        if microns is None and strict:
            self.note("fit no --spacing and are left out", path)
            return None
        target = self.microns_per_pixel or microns or 0.5
        self.microns_per_pixel = target
        if microns is None:
            self.note(f"do not say their magnification; taken as {target} microns a pixel", path)
        own = view_of(slide)
        try:
            view = shrunk(own, target / (microns or target))
        except InvalidInput:
            self.note(f"have more than {target} microns a pixel and are left out", path)
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Picture(path, own, view, digest, row)

    def large_enough(self, pictures: Sequence[Picture], what: str, side: int) -> list[Picture]:
        """Those that hold a square of `side` pixels.

        Raises:
            InvalidInput: none does.
        """
        found = []
        for picture in pictures:
            if min(picture.view.height, picture.view.width) >= side:
                found.append(picture)
            else:
                self.note(f"are smaller than {side} pixels and hold no place", picture.path)
        if not found:
            raise InvalidInput(
                f"patch_size is {side}, but none of {len(pictures)} {what} is as large; choose"
                " smaller patches or name others"
            )
        return found

    def note(self, what: str, path: Path) -> None:
        """Remember what was assumed or left out, and of which file."""
        self._notes.setdefault(what, []).append(str(path))

    def lines(self) -> list[str]:
        """A line for each thing noted."""
        return [
            f"{len(paths)} image(s) {what}; the first: {paths[0]}"
            for what, paths in self._notes.items()
        ]


def costs_of(pictures: Sequence[Picture]) -> dict[str, float]:
    """Means of what the images' records say they cost."""
    known = {
        name: [
            float(each.row[name])
            for each in pictures
            if isinstance(each.row.get(name), int | float)
        ]
        for name in COSTS
    }
    return {name: sum(values) / len(values) for name, values in known.items() if values}
