"""A PACS for the tests alone: Orthanc on a free loopback port, in a folder of its own."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from loopback_server import START_S, free_port, is_up

PROGRAM = Path("/usr/sbin/Orthanc")  # where Debian puts it, outside many a PATH
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "tester", "gehört: niemandem"
TRIES = 3  # the port was free a moment ago


def has_orthanc() -> bool:
    """Whether both the server and its DICOMweb plugin are installed."""
    return PROGRAM.exists() and PLUGIN.exists()


@contextmanager
def serve_orthanc() -> Iterator[str]:
    """Run a server; yields the URL of its DICOMweb service, which USER may use."""
    folder = Path(tempfile.mkdtemp(prefix="medphantom-orthanc-", dir="/tmp"))
    try:
        server, port = _start(folder)
        try:
            yield f"http://127.0.0.1:{port}/dicom-web"
        finally:
            server.kill()  # it takes seconds to say goodbye
            server.wait(START_S)
    finally:
        shutil.rmtree(folder)


def _start(folder: Path) -> tuple[subprocess.Popen[Any], int]:
    for _ in range(TRIES):
        port = free_port()
        (folder / "orthanc.json").write_text(json.dumps(_configuration(folder, port)))
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(
                [PROGRAM, folder / "orthanc.json"], stdout=log, stderr=log, cwd=folder
            )
        if _answers(server, port):
            return server, port
    raise RuntimeError(f"Orthanc did not start: {(folder / 'log').read_text()[-2000:]}")


def _configuration(folder: Path, port: int) -> dict[str, Any]:
    return {
        "StorageDirectory": f"{folder}/db",
        "IndexDirectory": f"{folder}/db",
        "TemporaryDirectory": str(folder),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def _answers(server: subprocess.Popen[Any], port: int) -> bool:
    def ask() -> None:
        requests.get(f"http://127.0.0.1:{port}/dicom-web/studies", timeout=START_S)

    return is_up(server, ask, requests.ConnectionError)
