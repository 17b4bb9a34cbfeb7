"""What servers that the tests start on loopback have in common: a free port, and a first answer."""

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

START_S = 30.0


def free_port() -> int:
    """A port that nobody listens at a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_up(server: subprocess.Popen[Any], ask: Callable[[], object], away: type[Exception]) -> bool:
    """Whether `ask` stops raising `away` while the server lives; else the server is killed."""
    end = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < end:
        try:
            ask()
            return True
        except away:
            time.sleep(0.05)
    server.kill()
    server.wait()
    return False
