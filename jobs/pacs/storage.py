"""Results given to a PACS (STOW-RS): each is stored, was there already, or is an error."""

import uuid
from collections.abc import Sequence
from io import BytesIO

import requests
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from gen.data.dicom_header import quiet
from gen.errors import PeerFailed
from jobs.pacs.connection import PACS
from jobs.pacs.dicom_json import Row, value_of, values_of
from jobs.pacs.search import is_stored

DUPLICATE = 0x0111
REASONS = {  # PS3.18 table I.2-2 and PS3.4 annex B
    0x0110: "it failed while processing",
    0x0122: "it does not keep objects of that SOP class",
    0x0124: "its rules do not allow it",
    0xA700: "it has no room left",
    0xA900: "the object does not fit its SOP class",
    0xB000: "it changed elements of it",
    0xB006: "it dropped elements of it",
    0xB007: "the object does not fit its SOP class",
    0xC000: "it cannot understand the object",
    0xC122: "it does not keep that transfer syntax",
}


def store(pacs: PACS, datasets: Sequence[Dataset]) -> None:
    """Store objects; one that is there already is left as it is.

    Raises:
        PeerFailed: one was refused, stored with changes, or is not confirmed; the message has the
            reasons. The others may be stored: storing all again does no harm.
        NotFound, PeerAway: see `PACS.ask`.
    """
    if not datasets:
        return
    # DICOMwebClient sends files without preamble, and hides why they were refused
    mark = uuid.uuid4().hex
    parts = [
        b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (mark.encode(), _file(each))
        for each in datasets
    ]
    body = b"".join([*parts, b"--%s--\r\n" % mark.encode()])
    answer = pacs.ask("store results", lambda: _send(pacs, body, mark))
    wrong = _complaints(pacs, answer, datasets)
    if wrong:
        raise PeerFailed(f"{pacs.place} did not store a result as it is: {'; '.join(wrong)}")


def store_missing(pacs: PACS, datasets: Sequence[Dataset]) -> Sequence[Dataset]:
    """Store the objects that are not there yet; returns these. Raises what `store` raises."""
    missing = [
        each
        for each in datasets
        if not is_stored(pacs, str(each.StudyInstanceUID), str(each.SOPInstanceUID))
    ]
    store(pacs, missing)
    return missing


def _file(dataset: Dataset) -> bytes:
    stream = BytesIO()
    with quiet():
        dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _send(pacs: PACS, body: bytes, mark: str) -> Row:
    response = pacs.session.post(
        f"{pacs.url}/studies",
        data=body,
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={mark}',
            "Accept": "application/dicom+json",
        },
        timeout=pacs.timeout_s,
    )
    verdicts = _verdicts(response)
    if verdicts is None:
        response.raise_for_status()
    return verdicts or {}


def _verdicts(response: requests.Response) -> Row | None:
    """The answer as DICOM JSON: also with 400 or 409, and whatever it calls itself."""
    try:
        content = response.json()
    except requests.JSONDecodeError:
        return None
    first = content[0] if isinstance(content, list) and content else content
    known = values_of(first, "FailedSOPSequence") or values_of(first, "ReferencedSOPSequence")
    return first if known else None


def _complaints(pacs: PACS, answer: Row, datasets: Sequence[Dataset]) -> list[str]:
    """Why any object is not stored as it is; objects are counted from 1, without their UIDs."""
    failed = _reasons(answer, "FailedSOPSequence", "FailureReason")
    stored = _reasons(answer, "ReferencedSOPSequence", "WarningReason")
    wrong = []
    for number, dataset in enumerate(datasets, 1):
        uid = str(dataset.SOPInstanceUID)
        if uid in failed:
            reason = None if failed[uid] == DUPLICATE else _words(failed[uid])
        elif uid in stored:
            reason = _words(stored[uid]) if stored[uid] else None
        else:
            there = is_stored(pacs, str(dataset.StudyInstanceUID), uid)
            reason = None if there else "it does not say that it has the object"
        if reason:
            wrong.append(f"object {number}: {reason}")
    return wrong


def _reasons(answer: Row, sequence: str, keyword: str) -> dict[str, int | None]:
    """The code of each instance in a sequence of the answer, by its UID."""
    codes = {}
    for item in values_of(answer, sequence):
        code = value_of(item, keyword)
        uid = str(value_of(item, "ReferencedSOPInstanceUID"))
        codes[uid] = code if isinstance(code, int) else None
    return codes


def _words(code: int | None) -> str:
    if code is None:
        return "it gives no reason"
    return REASONS.get(code, f"its reason has the code 0x{code:04X}")
