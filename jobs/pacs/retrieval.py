"""A picture fetched from a PACS (WADO-RS), within limits before, during and after the download."""

from email.message import Message
from io import BytesIO

import requests
from pydicom import dcmread

from gen.data.dicom_header import parse_dicom, quiet
from gen.data.limits import Limits, boundary, read_bytes
from gen.errors import UnsafeFile
from jobs.pacs.connection import PACS
from jobs.pacs.dicom_json import Row, value_of
from jobs.pacs.failures import not_dicomweb
from jobs.pacs.search import MARKS, Instance

NAME = "the instance"
DOING = "retrieve an instance"
CHUNK = 2**16
NOT_ACCEPTABLE = 406
OVERHEAD = 2**14  # of the multipart message around a file


def retrieve(pacs: PACS, instance: Instance, limits: Limits | None = None) -> bytes:
    """The DICOM file of an instance, safe for `read_dicom` and `dcmread`.

    Args:
        limits: what the file may cost; None means the defaults of `Limits`, with one frame.

    Raises:
        UnsafeFile: the picture or its file is too large, damaged, or in a syntax that is not read.
        NotFound, PeerFailed: see `PACS.ask`.
    """
    limits = limits or Limits()
    if instance.rows is not None and instance.columns is not None:
        limits.check_shape(NAME, instance.columns, instance.rows, instance.frames)
    data = pacs.ask(DOING, lambda: _download(pacs, instance, limits.max_bytes))
    read_bytes(data, limits)
    if data[128:132] != b"DICM":
        raise UnsafeFile(f"{NAME} was not sent as a DICOM file; look at it in the PACS")
    header = parse_dicom(NAME, data, max_frames=limits.max_frames)
    with boundary(NAME), quiet():
        frames = int(header.get("NumberOfFrames") or 1)
        limits.check_shape(NAME, int(header.Columns), int(header.Rows), frames)
    if value_of(read_marks(data), "SOPInstanceUID") != instance.sop_instance_uid:
        raise UnsafeFile(f"{NAME} is another one than was asked for; look at it in the PACS")
    return data


def read_marks(data: bytes) -> Row:
    """What `is_result` looks at, of a file that `retrieve` gave."""
    with boundary(NAME), quiet():
        dataset = dcmread(
            BytesIO(data), stop_before_pixels=True, specific_tags=[*MARKS, "SOPInstanceUID"]
        )
        row: Row = dataset.to_json_dict()
        return row


def _download(pacs: PACS, instance: Instance, max_bytes: int) -> bytes:
    """The file, uncompressed if the PACS can: it may decode what we do not."""
    response = _get(pacs, instance, "1.2.840.10008.1.2.1")
    if response.status_code == NOT_ACCEPTABLE:
        response.close()
        response = _get(pacs, instance, "*")
    with response:
        response.raise_for_status()
        body = _read(response, max_bytes)
        file = _only_part(response.headers.get("Content-Type", ""), body)
    if file is None:
        raise not_dicomweb(pacs.place, DOING)
    return file


def _get(pacs: PACS, instance: Instance, syntax: str) -> requests.Response:
    return pacs.session.get(
        f"{pacs.url}/studies/{instance.study_instance_uid}"
        f"/series/{instance.series_instance_uid}/instances/{instance.sop_instance_uid}",
        headers={
            "Accept": f'multipart/related; type="application/dicom"; transfer-syntax={syntax}',
            "Accept-Encoding": "identity",
        },
        stream=True,
        timeout=pacs.timeout_s,
    )


def _read(response: requests.Response, max_bytes: int) -> bytes:
    """The body, given up once it is larger than any file that would be accepted."""
    body = bytearray()
    for chunk in response.iter_content(CHUNK):
        body += chunk
        if len(body) > max_bytes + OVERHEAD:
            raise UnsafeFile(
                f"{NAME} is larger than {max_bytes} bytes, which is max_bytes, so its download was "
                "given up; leave it out"
            )
    return bytes(body)


def _only_part(content_type: str, body: bytes) -> bytes | None:
    """The file in a multipart message of one part, or sent without one; None if it is neither."""
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    mark = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not mark:
        return None
    delimiter = b"\r\n--" + mark.encode("latin-1", "replace")
    message = b"\r\n" + body  # the first delimiter may lack the line break before it
    start = message.find(b"\r\n\r\n", message.find(delimiter) + 1) + 4
    end = message.find(delimiter, start)
    closes = message[end + len(delimiter) :].startswith(b"--")
    return message[start:end] if start >= 4 and end >= 0 and closes else None
