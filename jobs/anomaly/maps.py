"""Maps of the scans in files and folders: read, mapped together, written, each once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.errors import MedphantomError
from jobs.anomaly.files import formats_for, write_files
from jobs.anomaly.mapper import Mapped, Mapper, MapsConfig
from jobs.anomaly.results import Results, row_of
from jobs.anomaly.sources import Scan, list_sources, read_file, read_scan, stem_of
from jobs.bars import Bars

Row = dict[str, Any]


@dataclass
class Summary:
    """How many scans were mapped, were finished before, and failed."""

    mapped: int = 0
    finished: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """All that is decided."""
        return self.mapped + self.finished + self.failed


def run_maps(
    config: MapsConfig, paths: Sequence[Path], on_row: Callable[[Row], None], drawn: Bars
) -> Summary:
    """Map every scan and write its results; one that fails is said, and the others go on.

    Args:
        config: what maps are made with.
        paths: files and folders.
        on_row: gets the row of each scan once its files are whole, or if they are so already.
        drawn: says what failed, by its path, and why.

    Raises:
        InvalidInput: there is no scan, no threshold, or `out` has results of other settings.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    sources = list_sources(paths, config.out)
    mapper = Mapper(config)
    results = open_results(config, mapper)
    results.check([key_of(path) for path in sources])
    summary, report = Summary(), drawn.bar("mapping")
    reading: dict[int, Path] = {}  # by the scan's id, which lives as long as it is here

    def finish(path: Path, error: Exception | None = None, row: Row | None = None) -> None:
        if error is not None:
            summary.failed += 1
            drawn.say(f"failed: {path}: {reason(error)}")
        elif row is not None:
            on_row(row)
        report(summary.done, len(sources))

    def scans() -> Iterator[Scan]:
        for path in sources:
            try:
                data = read_file(path)
                row = results.finished(key_of(path), hashlib.sha256(data).hexdigest())
                scan = None if row else read_scan(path.name, data)
            except Exception as error:
                finish(path, error)
                continue
            if scan is None:
                summary.finished += 1
                finish(path, row=row)
            else:
                reading[id(scan)] = path
                yield scan

    for mapped in mapper.map(scans()):
        path = reading.pop(id(mapped.scan))
        try:
            names = str(path), key_of(path), stem_of(path), path.resolve().parent.name
            row = write_results(config, mapper, results, mapped, *names)
        except Exception as error:
            finish(path, error)
        else:
            summary.mapped += 1
            finish(path, row=row)
    return summary


def open_results(config: MapsConfig, mapper: Mapper) -> Results:
    """The results in `out`, of these settings."""
    return Results(config.out, f"{mapper.analysis} {config.formats}", config.overwrite)


def write_results(
    config: MapsConfig,
    mapper: Mapper,
    results: Results,
    mapped: Mapped,
    source: str,
    key: str,
    stem: str,
    parent: str,
) -> Row:
    """Write the files of a scan, and then its row.

    Args:
        source: how the row calls the scan.
        key: which scan it is, in any run.
        stem, parent: of the files' names, see `Results.begin`.

    Raises:
        Exception: that the scan could not be mapped with.
    """
    if mapped.error is not None:
        raise mapped.error
    name = results.begin(key, stem, parent)
    formats = formats_for(mapped, config.formats)
    files = write_files(config.out, name, mapped, mapper.record(mapped.scan), formats)
    return results.add(row_of(source, key, name, mapped, files, mapper.settings))


def key_of(path: Path) -> str:
    """Which file it is, from whatever folder it is named."""
    return str(path.resolve())


def reason(error: Exception) -> str:
    """Of a failure; the message of an error that is not ours may quote the file."""
    return str(error) if isinstance(error, MedphantomError) else type(error).__name__
