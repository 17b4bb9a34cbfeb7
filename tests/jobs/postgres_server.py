"""A PostgreSQL server for the tests alone: on a free loopback port, in a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from loopback_server import START_S, free_port, is_up

ROOT = Path("/usr/lib/postgresql")  # where Debian puts them, one folder a version
TRIES = 3  # the port was free a moment ago


def find_binaries() -> Path | None:
    """The folder of the newest version's programs, or None without any."""
    found = sorted(ROOT.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def serve_postgres(binaries: Path) -> Iterator[str]:
    """Run a server; yields `postgresql+psycopg://...` of a superuser of its database postgres."""
    folder = Path(tempfile.mkdtemp(prefix="medphantom-postgres-", dir="/tmp"))
    try:
        identity = _unprivileged(folder)
        initdb = [f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust"]
        subprocess.run(
            [*initdb, "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True,
            capture_output=True,
            **identity,
        )
        server, port = _start(binaries, folder, identity)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown
            server.wait(START_S)
    finally:
        shutil.rmtree(folder)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Arguments of a subprocess that owns the folder: PostgreSQL refuses to run as root."""
    common = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
    if os.geteuid() != 0:
        return common
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {**common, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _start(
    binaries: Path, folder: Path, identity: dict[str, Any]
) -> tuple[subprocess.Popen[Any], int]:
    for _ in range(TRIES):
        port = free_port()
        place = ["-D", f"{folder}/data", "-k", f"{folder}", "-h", "127.0.0.1", "-p", f"{port}"]
        unsafe = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
        options = [part for option in (*unsafe, "max_connections=300") for part in ("-c", option)]
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(
                [f"{binaries}/postgres", *place, *options], stdout=log, stderr=log, **identity
            )
        if _answers(server, port):
            return server, port
    raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")


def _answers(server: subprocess.Popen[Any], port: int) -> bool:
    def ask() -> None:
        psycopg.connect(f"host=127.0.0.1 port={port} user=postgres").close()

    return is_up(server, ask, psycopg.OperationalError)
