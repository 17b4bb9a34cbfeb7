"""Arrays too large for memory, in a file, read and written in bands of rows."""

import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor

from gen.errors import InvalidInput

ITEM_BYTES = 4


class Canvas:
    """A float32 array (C, H, W) in an unnamed file; bands of rows go in and out as (C, h, W).

    The file is read and written, not mapped: pages of a map count as memory of the process.
    """

    def __init__(self, handle: int, channels: int, height: int, width: int) -> None:
        self._handle = handle
        self.channels, self.height, self.width = channels, height, width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows top <= y < bottom as (C, bottom - top, W)."""
        self._check(top, bottom)
        rows = np.empty((bottom - top, self.channels, self.width), np.float32)
        data = os.pread(self._handle, rows.nbytes, top * self._row_bytes)
        rows.reshape(-1)[:] = np.frombuffer(data, np.float32)
        return torch.from_numpy(rows).movedim(1, 0)

    def write(self, top: int, band: Tensor) -> None:
        """Replace rows from `top` on by a band (C, h, W)."""
        channels, height, width = band.shape
        self._check(top, top + height)
        if (channels, width) != (self.channels, self.width):
            raise InvalidInput(
                f"a band has the shape {tuple(band.shape)}, but the canvas {self.shape}"
            )
        data = band.float().cpu().movedim(0, 1).contiguous().numpy().data.cast("B")
        offset = top * self._row_bytes
        while data:
            written = os.pwrite(self._handle, data, offset)
            data, offset = data[written:], offset + written

    @property
    def _row_bytes(self) -> int:
        return self.channels * self.width * ITEM_BYTES

    def _check(self, top: int, bottom: int) -> None:
        if not 0 <= top < bottom <= self.height:
            raise InvalidInput(f"rows {top} to {bottom} are not within the canvas {self.shape}")


@contextmanager
def new_canvas(folder: Path, channels: int, height: int, width: int) -> Iterator[Canvas]:
    """A canvas of zeros whose file in `folder` has no name and goes with the block.

    Raises:
        InvalidInput: the disk has no room for it.
    """
    size = math.prod((channels, height, width, ITEM_BYTES))
    no_room = InvalidInput(
        f"{folder} has no room for {size / 2**20:.0f} MB of latents; free some, or set TMPDIR to"
        " another disk"
    )
    if shutil.disk_usage(folder).free < size:
        raise no_room
    with TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # or the disk would be full in mid-work
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            raise no_room from error
        yield Canvas(file.fileno(), channels, height, width)
