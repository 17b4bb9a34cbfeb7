"""Files appear whole or not at all, whatever interrupts the writer."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gen.errors import InvalidInput


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a stream whose content becomes `path` when the block ends without an exception.

    Raises InvalidInput if `path` exists and `overwrite` is False, or its folder is missing.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    # the same folder, because a rename is atomic only within one file system
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raise InvalidInput if `path` may not be written."""
    if not path.parent.is_dir():
        raise InvalidInput(
            f"{path} cannot be written: folder {path.parent} does not exist; make it"
        )
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder, but a file name is needed")
    if path.exists() and not overwrite:
        raise InvalidInput(
            f"{path} exists and is not overwritten; choose another name or pass overwrite=True"
        )


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system lets folders be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
