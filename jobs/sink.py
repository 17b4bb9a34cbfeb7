"""Where results are kept: a local folder, or any store fsspec knows, such as s3://bucket/path.

A file appears whole or not at all, under a name that holds its content's hash: whoever makes an
item a second time writes the same file, or one beside it that nothing refers to.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput, MedphantomError

BUNDLE = "application/zip"  # of several files, see `gen.data.bundle`
SUFFIXES = {
    "image/png": "png",
    "application/dicom": "dcm",
    "image/tiff": "ome.tif",
    BUNDLE: "zip",
}
UPLOADS = ".uploads"  # no job's id has a dot


@dataclass(frozen=True)
class Kept:
    """A file of the store."""

    file: str  # relative to the root
    sha256: str
    size: int


class Sink:
    """Results under one root.

    Args:
        root: folder or fsspec URL; chosen by whoever runs the service, never by a caller.
    """

    def __init__(self, root: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(root)
        self._local = self._fs.protocol in ("file", ("file", "local"))
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def put(self, job_id: str, index: int, data: bytes, media_type: str) -> Kept:
        """Keep the file of an item.

        Raises:
            OSError: the store is full or gone; nothing was changed.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        file = f"{_checked(job_id)}/{index:06d}-{sha256[:16]}.{SUFFIXES[media_type]}"
        self._write(file, data)
        return Kept(file, sha256, len(data))

    def _write(self, file: str, data: bytes) -> None:
        path = f"{self._root}/{file}"
        if not self._local:
            with _os_errors():
                self._fs.pipe_file(path, data)  # object stores show an object when it is whole
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, overwrite=True) as stream:
            stream.write(data)

    def get(self, file: str, sha256: str) -> bytes:
        """The bytes of a file that was kept.

        Raises:
            MedphantomError: it is gone or was changed, or the store cannot be read.
        """
        try:
            with _os_errors():
                data: bytes = self._fs.cat_file(f"{self._root}/{file}")
        except FileNotFoundError as error:
            raise MedphantomError(f"the result {file} is gone from its store") from error
        except OSError as error:
            raise MedphantomError("the store of results cannot be read; try again later") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise MedphantomError(f"the result {file} was changed after it was written")
        return data

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        """A file that was kept, to read parts of it; these are not held against its hash.

        Raises:
            MedphantomError: it is gone, or the store cannot be read.
        """
        try:
            with _os_errors():
                stream: BinaryIO = self._fs.open(f"{self._root}/{file}", "rb")
        except FileNotFoundError as error:
            raise MedphantomError(f"the result {file} is gone from its store") from error
        except OSError as error:
            raise MedphantomError("the store of results cannot be read; try again later") from error
        with stream:
            yield stream

    def put_upload(self, digest: str, data: bytes) -> None:
        """Keep a file that a job was sent, for `get_upload`; sent again, it is as new.

        Args:
            digest: its SHA-256, as hexadecimal digits.

        Raises:
            OSError: the store is full or gone; nothing was changed.
        """
        self._write(f"{UPLOADS}/{digest}", data)

    def get_upload(self, digest: str) -> bytes:
        """The file of a digest. Raises what `get` raises."""
        return self.get(f"{UPLOADS}/{digest}", digest)

    def sweep_uploads(self, older_than_s: float, now: float) -> int:
        """Forget the files sent so long ago that the jobs they came with are forgotten, too.

        Returns how many these were. Raises OSError if the store is away.
        """
        with _os_errors():
            try:
                found = self._fs.ls(f"{self._root}/{UPLOADS}", detail=True, refresh=True)
            except FileNotFoundError:
                return 0
            old = [each["name"] for each in found if _age(each, now) > older_than_s]
            for path in old:
                self._fs.rm_file(path)
        return len(old)

    def delete(self, files: list[str]) -> None:
        """Forget files, and the folders they leave empty; those already gone are no error."""
        for file in files:
            path = f"{self._root}/{file}"
            if self._fs.exists(path):
                self._fs.rm_file(path)
        if self._local:
            for folder in {Path(self._root, file).parent for file in files}:
                with suppress(OSError):  # it holds others, or is gone already
                    folder.rmdir()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise as OSError what object stores have errors of their own for."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"the store of results failed with {type(error).__name__}") from error


def _age(entry: dict[str, Any], now: float) -> float:
    """Seconds since a file of a listing was written; a local one has a number, S3 a moment."""
    at = entry.get("mtime", entry.get("LastModified", now))
    return now - (at.timestamp() if isinstance(at, datetime) else float(at))


def _checked(job_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", job_id):
        raise InvalidInput("a job's id is 1 to 64 letters, digits, _ or -")
    return job_id
