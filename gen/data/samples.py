"""What augmentation makes, an image with what belongs to it, and the tar files it is kept in.

A tar file is a shard of WebDataset: the files of a sample stand together and share their key. The
same samples always give the same bytes.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gen.errors import InvalidInput

TRAIN = "train"  # the only split that synthetic images may be in
META = "json"
MASK = "mask.png"
PICTURES = ("png", "dcm", "tif", "npy")  # what the image of a sample may be, by its suffix
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MAX_BYTES = 2**30  # of a file of a sample


@dataclass(frozen=True)
class Sample:
    """One result of a data set job.

    Args:
        key: its name in every format, of letters, digits, _ and -.
        files: by what comes after the key and a dot: "png" is the image, "mask.png" its label (L,
            0 is background), anything else belongs to it.
        meta: its row: at least `id`, `synthetic` (True), `split` ("train"), `labels` (names),
            `prompt`, `seed`, `operation`, `model`, `weight_sha256`, `source` and `source_sha256`
            (None unless it was made from an image), `gates` and `record`.
    """

    key: str
    files: dict[str, bytes] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise InvalidInput(
                f"key is {self.key!r}, but must be 1 to 100 letters, digits, _ and -"
            )

    @property
    def picture(self) -> str:
        """The suffix of the image among `files`.

        Raises:
            InvalidInput: there is none.
        """
        for suffix in PICTURES:
            if suffix in self.files:
                return suffix
        raise InvalidInput(f"sample {self.key} has no image; its files are {', '.join(self.files)}")


def write_tar(stream: BinaryIO, samples: Iterable[Sample]) -> None:
    """Write samples in their order; nothing of when, where and by whom."""
    for part in tar_parts(samples):
        stream.write(part)


def tar_parts(samples: Iterable[Sample]) -> Iterator[bytes]:
    """The same file in parts, each as soon as its sample is there."""
    buffer = _Parts()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for sample in samples:
            text = json.dumps(sample.meta, sort_keys=True, allow_nan=False)
            for suffix, data in {**sample.files, META: text.encode()}.items():
                entry = tarfile.TarInfo(f"{sample.key}.{suffix}")
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
            yield buffer.taken()
    yield buffer.taken()


class _Parts:
    """What tarfile writes to; taken out as it goes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._total = 0

    def tell(self) -> int:
        """Bytes so far."""
        return self._total

    def write(self, data: bytes) -> int:
        """Keep it until it is taken."""
        self._parts.append(bytes(data))
        self._total += len(data)
        return len(data)

    def taken(self) -> bytes:
        """What came since the last time."""
        data, self._parts = b"".join(self._parts), []
        return data


def read_tar(path: str | Path) -> Iterator[Sample]:
    """The samples of a shard, one at a time.

    Raises:
        InvalidInput: it is no such shard.
    """
    key, files = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                name, _, suffix = entry.name.partition(".")
                data = archive.extractfile(entry)
                if data is None or entry.size > _MAX_BYTES:
                    raise InvalidInput(f"{path}: {entry.name} is no file of a sample")
                if name != key and files:
                    yield _sample(key, files, path)
                    files = {}
                key, files[suffix] = name, data.read()
            if files:
                yield _sample(key, files, path)
    except tarfile.TarError as error:
        raise InvalidInput(f"{path} is no tar file of samples, or is cut short") from error


def shards_in(folder: str | Path) -> list[Path]:
    """The whole shards of the folder that a data set job has written, in order.

    Raises:
        InvalidInput: there is none.
    """
    found = sorted(Path(folder).glob("shards/shard-*.tar"))
    whole = [path for path in found if path.with_suffix(".json").is_file()]
    if not whole:
        raise InvalidInput(
            f"{folder} has no finished shard; name the folder that `medphantom jobs run` or "
            "`medphantom augment run` has written"
        )
    return whole


def read_shards(paths: Iterable[str | Path]) -> Iterator[Sample]:
    """The samples of several shards. Raises what `read_tar` raises."""
    for path in paths:
        yield from read_tar(path)


def _sample(key: str, files: dict[str, bytes], path: str | Path) -> Sample:
    try:
        meta = json.loads(files.pop(META))
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{path}: sample {key} has no row as {META}") from error
    return Sample(key, files, meta)
