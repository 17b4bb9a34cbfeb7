"""Features and thumbnails of a collection, read once, in little memory.

Features are kept by content: the hash of an image's bytes, of the encoder, and of how images are
prepared. A run that was killed goes on where it was; a collection that shares images with another
shares their features; a changed file, encoder or preparation is computed anew.
"""

import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor

from gen.data.atomic import atomic_file
from gen.data.collection import Item
from gen.data.images import Limits, read_image
from gen.data.limits import read_bytes
from gen.data.transforms import fit
from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput, MedphantomError

# Raise it when reading, resizing or cropping changes, so that no older feature is used.
PREPARATION = 1
# What a killed run may lose: so many images, or with a slow encoder so many seconds of work.
CHUNK = 128
_CHUNK_SECONDS = 60
_THREADS = min(8, os.cpu_count() or 1)

Report = Callable[[int, int], None]
"""Called with (images done, images in all)."""

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """Features of a collection's images.

    Args:
        features: (N, D) float32, finite.
        rows: (N,) the index of each in the items, rising.
        errors: a line for each image that could not be read; it has no features.
    """

    features: NDArray[np.float32]
    rows: NDArray[np.int64]
    errors: list[str]


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of a collection's images.

    Args:
        images: (N, 1, side, side) uint8.
        rows: (N,) the index of each in the items, rising.
        enlarged: (N,) whether the file holds fewer pixels a side: it lacks detail at this size.
        errors: a line for each image that could not be read; it has no thumbnail.
    """

    images: Tensor
    rows: NDArray[np.int64]
    enlarged: NDArray[np.bool_]
    errors: list[str]


@dataclass(frozen=True)
class _Read:
    """An image as a reader thread hands it over: its key and, unless cached, its pixels."""

    key: bytes
    pixels: NDArray[np.float32] | None


def encode_collection(
    items: Sequence[Item],
    encoder: Encoder,
    cache: Path,
    report: Report = lambda *_: None,
    flipped: bool = False,
) -> Encoded:
    """Features of images, computed where the cache does not hold them.

    Args:
        items: see `gen.data.collection.read_collection`.
        encoder: see `gen.encoders.loading.load_encoder`.
        cache: folder of features, made if missing; several encoders and collections may share it.
        report: progress.
        flipped: of the images left for right, in which a mirrored copy is found.

    Raises:
        InvalidInput: no image can be read, the encoder answers NaN, or the cache is no folder.
    """
    store = _Store(_folder_of(cache, encoder))
    keys: dict[int, bytes] = {}
    errors: list[str] = []
    batch: list[_Read] = []

    def read(item: Item) -> _Read:
        key = _key(item, flipped)
        if key in store.known:
            return _Read(key, None)
        prepared = encoder.prepare(read_image(item.file).pixels, item.orig_size)
        return _Read(key, prepared[:, ::-1] if flipped else prepared)

    for row, (item, outcome) in enumerate(_in_order(items, read)):
        if isinstance(outcome, MedphantomError):
            errors.append(f"{item.name}: {outcome}")
        else:
            keys[row] = outcome.key
            batch += [outcome] if outcome.pixels is not None else []
        if len(batch) == encoder.batch_size or row + 1 == len(items):
            store.add(batch, _encode(batch, encoder))
            batch = []
        report(row + 1, len(items))
    store.write()
    _check_some(list(keys), errors)
    features = np.stack([store.known[key] for key in keys.values()])
    return Encoded(features, np.array(list(keys)), errors)


def read_thumbnails(
    items: Sequence[Item], side: int, report: Report = lambda *_: None
) -> Thumbnails:
    """Thumbnails of images, each resized once from its file and cropped to its middle.

    Raises:
        InvalidInput: no image can be read, or the side is not positive.
    """
    if side < 1:
        raise InvalidInput(f"side is {side}, but a thumbnail has at least 1 pixel a side")
    images = np.empty((len(items), 1, side, side), np.uint8)
    rows: list[int] = []
    enlarged: list[bool] = []
    errors: list[str] = []

    def read(item: Item) -> tuple[NDArray[np.uint8], bool]:
        pixels = read_image(item.file).pixels
        small = np.round(fit(pixels, side, item.orig_size) * 255).astype(np.uint8)
        return small, min(pixels.shape) < side

    for row, (item, outcome) in enumerate(_in_order(items, read)):
        if isinstance(outcome, MedphantomError):
            errors.append(f"{item.name}: {outcome}")
        else:
            images[len(rows), 0] = outcome[0]
            rows.append(row)
            enlarged.append(outcome[1])
        report(row + 1, len(items))
    _check_some(rows, errors)
    return Thumbnails(
        torch.from_numpy(images[: len(rows)]), np.array(rows), np.array(enlarged), errors
    )


def _in_order(
    items: Sequence[Item], read: Callable[[Item], T]
) -> Iterator[tuple[Item, T | MedphantomError]]:
    """Read ahead in a few threads, no further than what they are busy with twice over."""
    ahead = 2 * _THREADS
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for row, item in enumerate(items):
                while len(waiting) < ahead and row + len(waiting) < len(items):
                    waiting.append(pool.submit(read, items[row + len(waiting)]))
                future = waiting.popleft()
                try:
                    yield item, future.result()
                except MedphantomError as error:
                    yield item, error
        finally:  # who stops early waits for no image that nobody will see
            pool.shutdown(cancel_futures=True)


def _check_some(rows: list[int], errors: list[str]) -> None:
    if not rows:
        first = errors[0] if errors else "there is none"
        raise InvalidInput(f"none of {len(errors)} images could be read; the first: {first}")


def _key(item: Item, flipped: bool) -> bytes:
    """What features depend on, the encoder aside: the file's bytes, true shape, and side."""
    digest = hashlib.sha256(read_bytes(item.file, Limits())[1])
    digest.update(repr(item.orig_size).encode() + b" flipped" * flipped)
    return digest.digest()


def _folder_of(cache: Path, encoder: Encoder) -> Path:
    name = re.sub(r"[^\w.-]+", "-", f"{encoder.id}-{encoder.side}-{PREPARATION}")
    folder = cache / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cache is {cache}, where no folder can be made ({error.strerror}); name another"
        ) from error
    return folder


def _encode(batch: list[_Read], encoder: Encoder) -> NDArray[np.float32]:
    """Features (N, D)."""
    if not batch:
        return np.empty((0, 0), np.float32)
    pixels = np.stack([each.pixels for each in batch if each.pixels is not None])
    features: NDArray[np.float32] = encoder.encode(torch.from_numpy(pixels)[:, None]).numpy()
    if not np.isfinite(features).all():
        raise InvalidInput(f"encoder {encoder.id} answers NaN or infinity; fetch its weights again")
    return features


class _Store:
    """Features by key, on disk in chunks that are each whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[bytes, NDArray[np.float32]] = {}
        self._unwritten: list[bytes] = []
        self._written_at = time.monotonic()
        for path in folder.glob("*.safetensors"):
            self._read(path)

    def add(self, batch: list[_Read], features: NDArray[np.float32]) -> None:
        for each, row in zip(batch, features, strict=True):
            self.known[each.key] = row
            self._unwritten.append(each.key)
        late = time.monotonic() - self._written_at > _CHUNK_SECONDS
        if late or len(self._unwritten) >= CHUNK:
            self.write()

    def write(self) -> None:
        if not self._unwritten:
            return
        keys = np.stack([np.frombuffer(key, np.uint8) for key in self._unwritten])
        data = save({"keys": keys, "features": np.stack([self.known[k] for k in self._unwritten])})
        # named by its own hash, which tells a damaged chunk from a sound one
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        with atomic_file(path, overwrite=True) as stream:
            stream.write(data)
        self._unwritten, self._written_at = [], time.monotonic()

    def _read(self, path: Path) -> None:
        """Take a chunk's features; remove a damaged one, so that they are computed again."""
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.stem:
            path.unlink(missing_ok=True)
            return
        chunk = load(data)
        for key, row in zip(chunk["keys"], chunk["features"], strict=True):
            self.known[key.tobytes()] = row
