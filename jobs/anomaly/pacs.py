"""Maps of the scans in a PACS: fetched, mapped and written like files, and stored if asked."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.data.limits import STACK_LIMITS
from gen.errors import InvalidInput
from jobs.anomaly.files import Format
from jobs.anomaly.mapper import Mapper, MapsConfig
from jobs.anomaly.maps import Summary, open_results, write_results
from jobs.anomaly.sources import read_scan
from jobs.bars import Bars
from jobs.pacs.connection import PACS
from jobs.pacs.ledger import Ledger
from jobs.pacs.process import Outcome, State, process_studies
from jobs.pacs.search import find_instances

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LEDGER = ".stored"
STORED = ("segmentation", "dicom_overlay")
STORED_FORMATS = (Format.DICOM_SEG.value, Format.DICOM_OVERLAY.value)


@dataclass(frozen=True)
class Search:
    """Which pictures of a PACS; see `jobs.pacs.search.find_instances`."""

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    modality: str | None = None
    study_date: str | None = None
    limit: int | None = None


def run_pacs(
    config: MapsConfig,
    pacs: PACS,
    search: Search,
    store: bool,
    on_row: Callable[[dict[str, Any]], None],
    drawn: Bars,
) -> Summary:
    """Map every picture that is found; one that fails is said, without UIDs, and the others go on.

    Results are written to `config.out` under names that tell no UID. With `store`, segmentation and
    overlay are stored beside their picture, once: a second run does not even fetch it.

    Raises:
        InvalidInput: a condition breaks a rule, no threshold is known, `config.out` has results of
            other settings, or what is stored is not to be made.
        ModelRefused: see `gen.store.loading.load_components`.
        PeerAway, PeerFailed: see `jobs.pacs.connection.PACS.ask`.
    """
    if store and not set(config.formats or STORED_FORMATS) >= set(STORED_FORMATS):
        raise InvalidInput(
            f"format lacks {' or '.join(STORED_FORMATS)}, but both are stored in the PACS; add them"
        )
    mapper = Mapper(config)
    results = open_results(config, mapper)
    found = find_instances(pacs, **vars(search))
    results.check([_name(each.sop_instance_uid) for each in found])
    summary, report, computed = Summary(), drawn.bar("mapping"), 0
    before = 0  # were computed when the last outcome was known

    def analyse(data: bytes) -> "Sequence[Dataset]":
        from pydicom import dcmread

        nonlocal computed
        scan = read_scan("the instance", data)
        assert scan.dicom is not None
        name = _name(scan.dicom.SOPInstanceUID)
        row = results.finished(name, scan.sha256)
        if row is None:
            (mapped,) = mapper.map([scan])
            row = write_results(config, mapper, results, mapped, name, name, name, "pacs")
            computed += 1
        on_row(row)
        names = [Path(row["files"][what]).name for what in STORED if what in row["files"]]
        return [dcmread(config.out / name) for name in names]

    def note(outcome: Outcome) -> None:
        nonlocal before
        done = summary.done + 1
        if outcome.state is State.FAILED:
            summary.failed += 1
            drawn.say(f"failed: picture {done} of {len(found)}: {outcome.reason}")
        elif computed > before:
            summary.mapped += 1
        else:
            summary.finished += 1
        before = computed
        report(summary.done, len(found))

    ledger = Ledger(config.out / LEDGER, mapper.analysis)
    process_studies(
        pacs, found, analyse, store=store, report=note, ledger=ledger, limits=STACK_LIMITS
    )
    return summary


def _name(sop_instance_uid: str) -> str:
    return f"pacs-{hashlib.sha256(str(sop_instance_uid).encode()).hexdigest()[:16]}"
