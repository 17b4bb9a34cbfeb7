"""Reading in a process of its own, so that the peak of its memory is the file's doing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHILD = """
import json, sys
from gen.data.images import read_image
try:
    outcome = str(read_image(sys.argv[1]).pixels.shape)
except Exception as error:
    outcome = f"{type(error).__name__}: {error}"
try:  # ru_maxrss would count the parent's memory too
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([outcome, peak]))
"""


@pytest.fixture
def read_in_a_child(tmp_path: Path) -> Callable[[str, bytes], tuple[str, float]]:
    """Return a function from (file name, content) to (outcome, peak of memory in MiB)."""

    def read(name: str, data: bytes) -> tuple[str, float]:
        (tmp_path / name).write_bytes(data)
        command = [sys.executable, "-c", CHILD, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        outcome, peak_mb = json.loads(done.stdout)
        return outcome, peak_mb

    return read
