"""Reading in a process of its own, so that the peak of its memory is the file's doing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gen.data.provenance import Record
from gen.data.slide_writer import SlideWriter

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


SLIDE_RECORD = Record(
    model="histo-mini", weight_sha256="0" * 64, prompt="<!DOCTYPE> & 胸水\n", seed=3,
    scheduler="ddim", num_inference_steps=5, guidance_scale=2, height=2, width=2,
)  # fmt: skip


@pytest.fixture(scope="session")
def slide_record() -> Record:
    """A record whose prompt is a trial for XML."""
    return SLIDE_RECORD


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Colours that change slowly, another in each corner, so that JPEG keeps them."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    red, green, blue = 20 + 200 * y + 0 * x, 30 + 190 * x + 0 * y, 220 - 100 * y - 100 * x
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def colours() -> Callable[[int, int], NDArray[np.uint8]]:
    """Return a function from (height, width) to an image whose four corners differ."""
    return smooth


@pytest.fixture
def write_slide(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an image (H, W, 3) as a slide, in bands of 37 rows."""

    def write(image: NDArray[np.uint8], name: str = "x.ome.tif", **options: object) -> Path:
        options = {"microns_per_pixel": 0.5, "record": SLIDE_RECORD, **options}
        with SlideWriter(tmp_path / name, *image.shape[:2], **options) as slide:  # type: ignore[arg-type]
            for top in range(0, len(image), 37):
                slide.write(image[top : top + 37])
        return tmp_path / name

    return write


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    """A PNG of 30 x 50 pixels (height x width)."""
    Image.fromarray(smooth(30, 50)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"
