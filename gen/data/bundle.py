"""Several files of one result as one: a ZIP archive that the same files always make again."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import BinaryIO

from gen.errors import MedphantomError, NotFound

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest an archive can say: when it was made is no content
_COMPRESSED = (".png",)  # as they are
MEDIA_TYPES = {
    ".png": "image/png",
    ".json": "application/json",
    ".dcm": "application/dicom",
    ".npy": "application/octet-stream",
}


def pack(files: Mapping[str, bytes]) -> bytes:
    """An archive of files by their names, in their order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            stored = PurePosixPath(name).suffix in _COMPRESSED
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=1)
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """What was packed."""
    with _opened(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_member(stream: BinaryIO, name: str) -> bytes:
    """One file of an archive, of which no more is read than needed.

    Raises:
        NotFound: the archive has none of that name.
    """
    with _opened(stream) as archive:
        if name not in archive.namelist():
            raise NotFound(f"this result has the files {', '.join(archive.namelist())}")
        return archive.read(name)


def media_type(name: str) -> str:
    """Of a file in an archive, by its name."""
    return MEDIA_TYPES[PurePosixPath(name).suffix]


def _opened(stream: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise MedphantomError("the result is no archive, though it was made as one") from error
