"""A PACS that is away, slow to come back, strange or hostile, played by a small server."""

import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from gen.data.limits import Limits
from gen.errors import NotFound, PeerAway, PeerFailed, UnsafeFile
from jobs.pacs.connection import PACS, WAITS_S
from jobs.pacs.process import Outcome, State, process_studies
from jobs.pacs.retrieval import retrieve
from jobs.pacs.search import Instance, find_instances
from jobs.pacs.settings import PACSSettings
from jobs.pacs.storage import store

JSON = {"Content-Type": "application/dicom+json"}
PICTURE = Instance("1.2", "1.3", "1.4", "CR", 8, 8)

Answer = tuple[int, dict[str, str], bytes]


class Player:
    """Answers each request with the next answer, and the last one for ever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str]]] = []

    def next(self, path: str, headers: dict[str, str]) -> Answer:
        self.requests.append((path, headers))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def playing(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[tuple[Player, str]]:
    player = Player(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = player.next(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield player, f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def pacs_at(url: str, waits: list[float] | None = None, **fields: Any) -> PACS:
    settings = PACSSettings.model_validate({"url": url, **fields})
    return PACS(settings, sleep=(waits if waits is not None else []).append)


def search(pacs: PACS) -> list[Instance]:
    return find_instances(pacs, patient_id="Carla")


def attribute(value: Any) -> dict[str, Any]:
    return {"Value": [value]}


def study_row(number: int = 0) -> dict[str, Any]:
    return {"0020000D": attribute(f"1.2.{number}")}


def rows(*each: dict[str, Any]) -> Answer:
    return 200, JSON, json.dumps(each).encode()


NOTHING = rows()
HTML = (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")


def message(body: bytes, mark: str = "mark", close: bytes = b"--") -> Answer:
    """A WADO-RS answer of one part."""
    kind = f'multipart/related; type="application/dicom"; boundary="{mark}"'
    head = f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return 200, {"Content-Type": kind}, head + body + f"\r\n--{mark}".encode() + close


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_longer_waits(status: int) -> None:
    waits: list[float] = []
    with playing((status, {}, b""), (status, {}, b""), NOTHING) as (player, url):
        assert search(pacs_at(url, waits)) == []
        assert len(player.requests) == 3
    assert waits == list(WAITS_S[:2])
    waits.clear()
    with playing((status, {}, b"")) as (player, url):
        with pytest.raises(PeerAway, match=f"answers {status} when asked to search, several times"):
            search(pacs_at(url, waits))
        assert len(player.requests) == 1 + len(WAITS_S)
    assert waits == list(WAITS_S)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, PeerFailed, "check the path"),
        (401, PeerAway, "does not accept the credentials"),
        (403, PeerFailed, "does not allow that"),
        (404, NotFound, "has nothing there"),
        (415, PeerFailed, "answers 415"),
    ],
)
def test_a_refusal_is_not_asked_again(status: int, kind: Any, words: str) -> None:
    with playing((status, {}, b"Carla")) as (player, url):
        for request in (search, lambda pacs: retrieve(pacs, PICTURE), send):
            player.requests.clear()
            with pytest.raises(kind, match=words) as caught:
                request(pacs_at(url))
            assert len(player.requests) == 1
            assert "Carla" not in str(caught.value)


def test_a_pacs_that_does_not_run_is_away() -> None:
    with playing(NOTHING) as (_, url):
        pass
    waits: list[float] = []
    with pytest.raises(PeerAway, match="cannot be asked to search: ConnectionError") as caught:
        search(pacs_at(url, waits))
    assert waits == list(WAITS_S)
    assert caught.value.__suppress_context__  # the cause quotes the address


def test_an_answer_cut_short_is_tried_again() -> None:
    short = (200, {"Content-Length": "1000", "Connection": "close"}, b"--mark\r\n")
    gone = (404, {}, b"")
    with playing(short, gone) as (player, url):
        with pytest.raises(NotFound):
            retrieve(pacs_at(url), PICTURE)
        assert len(player.requests) == 2


def test_redirects_are_not_followed() -> None:
    with (
        playing(NOTHING) as (target, elsewhere),
        playing((302, {"Location": elsewhere}, b"")) as (_, url),
    ):
        pacs = pacs_at(url, token="s3cret")
        for request in (search, lambda pacs: retrieve(pacs, PICTURE), send):
            with pytest.raises(PeerAway, match="redirects are not followed"):
                request(pacs)
        assert not target.requests


@pytest.mark.parametrize(
    "answer",
    [
        HTML,
        rows({"status": "ok"}),  # type: ignore[arg-type]
        (200, JSON, b'{"message": "hello"}'),
        (200, JSON, b"[1, 2]"),
        (200, JSON, b"7"),
        rows({"0020000D": attribute("../../admin")}),
        rows({"0020000D": attribute(5)}),
        rows({"0020000D": 5}),
    ],
)
def test_a_server_that_is_no_dicomweb_is_told(answer: Answer) -> None:
    with playing(answer) as (_, url), pytest.raises(PeerAway, match="does not answer as DICOMweb"):
        search(pacs_at(url))


def test_a_search_ends_where_a_pacs_knows_no_pages_and_tells_little() -> None:
    instance = {"00080018": attribute("1.4"), "0020000E": attribute("1.3")}
    with playing(rows(study_row()), rows(instance), rows(instance), rows(study_row())) as (_, url):
        assert search(pacs_at(url)) == [Instance("1.2.0", "1.3", "1.4", None, None, None)]


def test_credentials_and_host_are_sent() -> None:
    with playing(NOTHING) as (player, url):
        search(pacs_at(url, token="s3cret"))
        search(pacs_at(url, username="me", password="ö"))
        (_, bearer), (_, basic) = player.requests
        assert bearer["Authorization"] == "Bearer s3cret"
        assert basic["Authorization"] == "Basic bWU6w7Y="
        assert bearer["Host"] == url.split("/")[2]  # with the port


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (HTML, PeerAway, "does not answer as DICOMweb"),
        (message(b"x", close=b""), PeerAway, "does not answer as DICOMweb"),
        ((200, {"Content-Type": "multipart/related"}, b"x"), PeerAway, "not answer as DICOMweb"),
        (message(b"x"), UnsafeFile, "was not sent as a DICOM file"),
        (message(b"\0" * 128 + b"DICM"), UnsafeFile, "transfer syntax"),
        (message(bytes(2**20)), UnsafeFile, "download was given up"),
        ((200, {"Content-Type": "application/dicom"}, bytes(999)), UnsafeFile, "not sent as"),
    ],
)
def test_an_answer_that_is_no_picture_is_refused(answer: Answer, kind: Any, words: str) -> None:
    with playing(answer) as (_, url), pytest.raises(kind, match=words):
        retrieve(pacs_at(url), PICTURE, Limits(max_bytes=1000))


def test_a_pacs_that_cannot_decode_sends_what_it_has() -> None:
    with playing((406, {}, b""), message(b"x")) as (player, url):
        with pytest.raises(UnsafeFile, match="was not sent as a DICOM file"):
            retrieve(pacs_at(url), PICTURE)
        accepted = [headers["Accept"] for _, headers in player.requests]
        assert [each.rpartition("=")[2] for each in accepted] == ["1.2.840.10008.1.2.1", "*"]


def result(number: int = 0) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.SegmentationStorage, f"1.9.{number}"
    dataset.StudyInstanceUID = "1.2"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def send(pacs: PACS) -> None:
    store(pacs, [result()])


def verdict(tag: str, code_tag: str, code: int | None, sop_uid: str = "1.9.0") -> bytes:
    item: dict[str, Any] = {"00081155": attribute(sop_uid)}
    if code is not None:
        item[code_tag] = attribute(code)
    return json.dumps({tag: attribute(item)}).encode()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (409, 0xA700, "object 1: it has no room left"),
        (409, 0x0122, "does not keep objects of that SOP class"),
        (400, 0xC123, "its reason has the code 0xC123"),
        (409, None, "it gives no reason"),
        (200, 0x0110, "it failed while processing"),
    ],
)
def test_a_refused_result_is_an_error_that_names_the_reason(
    status: int, code: int | None, words: str
) -> None:
    body = verdict("00081198", "00081197", code)
    with playing((status, {}, body)) as (player, url):
        with pytest.raises(PeerFailed, match=words):
            send(pacs_at(url))
        assert len(player.requests) == 1


def test_a_result_that_was_changed_is_an_error() -> None:
    body = verdict("00081199", "00081196", 0xB000)
    with (
        playing((202, JSON, body)) as (_, url),
        pytest.raises(PeerFailed, match="it changed elements of it"),
    ):
        send(pacs_at(url))


@pytest.mark.parametrize(
    "answer",
    [
        (200, JSON, verdict("00081199", "00081196", None)),
        (409, JSON, verdict("00081198", "00081197", 0x0111)),  # it is there already
        (200, JSON, b"[" + verdict("00081199", "00081196", None) + b"]"),
    ],
)
def test_a_result_that_is_there_is_stored(answer: Answer) -> None:
    with playing(answer) as (player, url):
        send(pacs_at(url))
        assert len(player.requests) == 1


def test_a_result_that_is_not_confirmed_is_looked_for() -> None:
    silent = (200, {"Content-Type": "application/dicom+xml"}, b"<NativeDicomModel/>")
    with playing(silent, rows({"00080018": attribute("1.9.0")})) as (_, url):
        send(pacs_at(url))
    with playing(silent, NOTHING) as (_, url), pytest.raises(PeerFailed, match="does not say that"):
        send(pacs_at(url))


def test_a_pacs_that_is_down_ends_the_run_and_one_bad_picture_does_not() -> None:
    outcomes: list[Outcome] = []
    down, gone = (503, {}, b""), (404, {}, b"")
    tries = 1 + len(WAITS_S)

    def run(pacs: PACS) -> None:
        process_studies(pacs, [PICTURE] * 6, lambda _: [], store=True, report=outcomes.append)

    with playing(*[down] * 2 * tries, gone, *[down] * 2 * tries, gone) as (_, url):
        run(pacs_at(url))
    assert [outcome.state for outcome in outcomes] == [State.FAILED] * 6
    outcomes.clear()
    with playing(down) as (_, url), pytest.raises(PeerAway, match="answers 503"):
        run(pacs_at(url))
    assert len(outcomes) == 3


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path / "server.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + signed.public_bytes(pem))
    return path


def test_only_a_known_authority_is_believed(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    waits: list[float] = []
    with playing(NOTHING, tls=tls) as (player, url):
        with pytest.raises(PeerAway, match="authority that signed it as ca_bundle"):
            search(pacs_at(url, waits))
        assert not waits
        assert not player.requests
        assert search(pacs_at(url, ca_bundle=certificate)) == []
