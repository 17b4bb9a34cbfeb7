"""Which pictures of a PACS are to be analysed (QIDO-RS): those of patients, not our own results."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from gen.errors import InvalidInput
from jobs.pacs.connection import PACS
from jobs.pacs.dicom_json import Row, value_of
from jobs.pacs.failures import not_dicomweb

PAGE = 100
NO_PICTURES = ("SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "RTSTRUCT", "RTPLAN", "RTRECORD")
MANUFACTURER = "medphantom"

# of these, Orthanc does not show SourceImageSequence
MARKS = ("Modality", "Manufacturer", "ConversionType", "SourceImageSequence")
_SHOWN = (*MARKS, "Rows", "Columns", "NumberOfFrames")
_UID = re.compile(r"[0-9]+(?:[.][0-9]+)*")
_DATE = re.compile(r"[0-9]{8}|[0-9]{8}-|-[0-9]{8}|[0-9]{8}-[0-9]{8}")


@dataclass(frozen=True)
class Instance:
    """A picture in a PACS; None is what the PACS does not tell."""

    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    modality: str | None
    rows: int | None
    columns: int | None
    frames: int = 1


def find_instances(
    pacs: PACS,
    *,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    patient_id: str | None = None,
    modality: str | None = None,
    study_date: str | None = None,
    accession_number: str | None = None,
    limit: int | None = None,
) -> list[Instance]:
    """Pictures that meet every condition, without those that are results or show nothing.

    Args:
        series_instance_uid: of the study that is named, too.
        modality: such as "CR".
        study_date: YYYYMMDD, or a range YYYYMMDD-YYYYMMDD, open on either side.
        limit: at most so many; without it, a condition other than modality is needed.

    Raises:
        InvalidInput: a condition breaks a rule; the value is not repeated.
        NotFound, PeerFailed: see `PACS.ask`.
    """
    _check_uid("study_instance_uid", study_instance_uid)
    _check_uid("series_instance_uid", series_instance_uid)
    _check_text("patient_id", patient_id, 64)
    _check_text("accession_number", accession_number, 16)
    _check_text("modality", modality, 16)
    if study_date is not None and not _DATE.fullmatch(study_date):
        raise InvalidInput("study_date must be YYYYMMDD or YYYYMMDD-YYYYMMDD")
    if series_instance_uid is not None and study_instance_uid is None:
        raise InvalidInput("series_instance_uid needs study_instance_uid; name the study, too")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, but must be at least 1")
    conditions = {
        "StudyInstanceUID": study_instance_uid,
        "PatientID": patient_id,
        "StudyDate": study_date,
        "AccessionNumber": accession_number,
    }
    if limit is None and not any(conditions.values()):
        raise InvalidInput("no study is named, so all would be analysed; name some, or set limit")
    filters = {keyword: value for keyword, value in conditions.items() if value}
    if modality:
        filters["ModalitiesInStudy"] = modality
    found = _instances(pacs, filters, series_instance_uid, modality)
    return list(islice(found, limit))


def is_stored(pacs: PACS, study_instance_uid: str, sop_instance_uid: str) -> bool:
    """Whether a study has an instance. Raises what `PACS.ask` raises."""
    rows = _page(
        pacs,
        pacs.client.search_for_instances,
        study_instance_uid=study_instance_uid,
        search_filters={"SOPInstanceUID": sop_instance_uid},
        limit=1,
    )
    return any(_uid(pacs, row, "SOPInstanceUID") == sop_instance_uid for row in rows)


def is_result(row: Row) -> bool:
    """Whether an object came out of an analysis: a segmentation, or our picture of a source.

    What we synthesise is no result: it has no source, and the conversion type SYN.
    """
    ours = value_of(row, "Manufacturer") == MANUFACTURER
    drawn = value_of(row, "ConversionType") == "WSD" or value_of(row, "SourceImageSequence")
    return value_of(row, "Modality") == "SEG" or bool(ours and drawn)


def _instances(
    pacs: PACS, filters: dict[str, str], series_instance_uid: str | None, modality: str | None
) -> Iterator[Instance]:
    """Studies first: many a PACS finds instances only within a study."""
    within = {"Modality": modality} if modality else {}
    for study in _rows(pacs, "StudyInstanceUID", pacs.client.search_for_studies, filters):
        uid = _uid(pacs, study, "StudyInstanceUID")
        for row in _rows(
            pacs,
            "SOPInstanceUID",
            pacs.client.search_for_instances,
            within,
            study_instance_uid=uid,
            series_instance_uid=series_instance_uid,
            fields=_SHOWN,
        ):
            instance = _read(pacs, row, uid, series_instance_uid)
            other = modality and instance.modality not in (modality, None)
            if not (other or instance.modality in NO_PICTURES or is_result(row)):
                yield instance


def _rows(
    pacs: PACS, key: str, search: Callable[..., list[Row]], filters: dict[str, str], **place: Any
) -> Iterator[Row]:
    """All answers to a search, until a page brings nothing new.

    A page may be shorter than was asked for, and a PACS that knows no pages repeats the first.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        page = _page(pacs, search, **place, search_filters=filters, limit=PAGE, offset=offset)
        offset += len(page)
        fresh = [row for row in page if _uid(pacs, row, key) not in seen]
        if not fresh:
            return
        yield from fresh
        seen.update(_uid(pacs, row, key) for row in fresh)


def _page(pacs: PACS, search: Callable[..., list[Row]], **arguments: Any) -> list[Row]:
    page = pacs.ask("search", partial(search, **arguments))
    if not isinstance(page, list):
        raise not_dicomweb(pacs.place, "search")
    return page


def _read(pacs: PACS, row: Row, study_uid: str, series_uid: str | None) -> Instance:
    """One row, which need not repeat what its address says."""
    try:
        rows, columns = value_of(row, "Rows"), value_of(row, "Columns")
        return Instance(
            study_instance_uid=study_uid,
            series_instance_uid=series_uid or _uid(pacs, row, "SeriesInstanceUID"),
            sop_instance_uid=_uid(pacs, row, "SOPInstanceUID"),
            modality=value_of(row, "Modality"),
            rows=None if rows is None else int(rows),
            columns=None if columns is None else int(columns),
            frames=int(value_of(row, "NumberOfFrames") or 1),
        )
    except (TypeError, ValueError):
        raise not_dicomweb(pacs.place, "search") from None


def _uid(pacs: PACS, row: Row, keyword: str) -> str:
    """A UID of a row, fit to be part of an address."""
    value = value_of(row, keyword)
    if not isinstance(value, str) or not _is_uid(value):
        raise not_dicomweb(pacs.place, "search")
    return value


def _is_uid(value: str) -> bool:
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _check_uid(name: str, value: str | None) -> None:
    if value is not None and not _is_uid(value):
        raise InvalidInput(
            f"{name} must be a UID: numbers with dots between, at most 64 characters"
        )


def _check_text(name: str, value: str | None, longest: int) -> None:
    """Refuse what a PACS would take for several values or a pattern."""
    fits = value is None or (0 < len(value) <= longest and value.isprintable())
    if not fits or (value is not None and set(value) & set("*?\\")):
        raise InvalidInput(f"{name} must be 1 to {longest} characters without *, ? and \\")
