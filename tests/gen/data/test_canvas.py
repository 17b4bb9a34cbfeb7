"""Arrays in files: bands come back, and a full disk says so at once."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from gen.data.canvas import new_canvas
from gen.errors import InvalidInput


def test_bands_come_back_where_they_were_put(tmp_path: Path) -> None:
    whole = torch.randn(3, 11, 7, generator=torch.manual_seed(0))
    with new_canvas(tmp_path, 3, 11, 7) as canvas:
        canvas.write(4, whole[:, 4:9])
        canvas.write(0, whole[:, :4])
        canvas.write(9, whole[:, 9:])
        assert torch.equal(canvas.read(0, 11), whole)
        assert torch.equal(canvas.read(3, 8), whole[:, 3:8])


def test_it_begins_with_zeros_and_leaves_nothing(tmp_path: Path) -> None:
    with new_canvas(tmp_path, 2, 5, 5) as canvas:
        assert not canvas.read(0, 5).any()
    assert not any(tmp_path.iterdir())


def test_bands_outside_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    with new_canvas(tmp_path, 2, 5, 6) as canvas:
        with pytest.raises(InvalidInput, match="not within"):
            canvas.read(3, 6)
        with pytest.raises(InvalidInput, match="not within"):
            canvas.write(4, torch.zeros(2, 2, 6))
        with pytest.raises(InvalidInput, match="shape"):
            canvas.write(0, torch.zeros(2, 2, 5))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_room_that_somebody_else_took_meanwhile_is_missed_at_once(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    words = "no room for 8 MB of latents"
    with pytest.raises(InvalidInput, match=words), new_canvas(tmp_path, 2, 1024, 1024):
        pass
    assert not any(tmp_path.iterdir())


def test_a_disk_without_room_is_refused_at_once(tmp_path: Path) -> None:
    rows = shutil.disk_usage(tmp_path).free // (4 * 2**20) + 2**12
    with pytest.raises(InvalidInput, match="no room"), new_canvas(tmp_path, 1, rows, 2**20):
        pass
