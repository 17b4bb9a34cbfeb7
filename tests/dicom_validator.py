"""What Debian's dicom3tools say of a DICOM file."""

import shutil
import subprocess
from pathlib import Path

import pytest


def complaints(path: Path) -> list[str]:
    """Errors of dciodvfy; its dictionary lacks Synthetic Data. Without it the test is skipped."""
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed; it is in Debian's dicom3tools")
    report = subprocess.run([validator, str(path)], capture_output=True, text=True).stderr
    errors = [line for line in report.splitlines() if line.startswith("Error")]
    return [error for error in errors if "(0x0008,0x001c)" not in error]
