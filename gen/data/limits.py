"""What a file may cost, decided from its header before anything is decoded."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gen.errors import InvalidInput, MedphantomError, UnsafeFile

Source = str | Path | bytes

# Below Pillow's own warning (89 M pixels), so that warning can never be the first to speak.
LARGEST_SIDE = 9459


@dataclass(frozen=True)
class Limits:
    """Caps on one file: its bytes as stored, and its picture as the header declares it."""

    max_side: int = 4096
    max_bytes: int = 64 * 2**20
    max_frames: int = 1
    max_pixels: int = 4096 * 4096

    def __post_init__(self) -> None:
        for name in ("max_side", "max_bytes", "max_frames", "max_pixels"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, but it must be at least 1")
        if self.max_side > LARGEST_SIDE:
            raise InvalidInput(
                f"max_side is {self.max_side}, but no side above {LARGEST_SIDE} is decoded; cut "
                "larger pictures into tiles"
            )

    def check_shape(self, name: str, width: int, height: int, frames: int = 1) -> None:
        """Raise UnsafeFile unless a picture of this shape may be decoded."""
        shape = f"{name} declares {width} x {height} pixels in {frames} frame(s)"
        if min(width, height, frames) < 1:
            raise UnsafeFile(f"{shape}, but a picture needs at least one of each")
        if max(width, height) > self.max_side:
            raise UnsafeFile(f"{shape}, but max_side is {self.max_side}; make it smaller first")
        if width * height * frames > self.max_pixels * self.max_frames:
            raise UnsafeFile(f"{shape}, but max_pixels is {self.max_pixels}; make it smaller first")
        if frames > self.max_frames:
            raise UnsafeFile(
                f"{shape}, but max_frames is {self.max_frames}; split it into single pictures first"
            )


# A whole scan: 134 million pixels, which take half a gigabyte as float32.
STACK_LIMITS = Limits(max_frames=512, max_pixels=512 * 512, max_bytes=2**28)


def read_bytes(source: Source, limits: Limits) -> tuple[str, bytes]:
    """Return (name for messages, content) of a regular file or of bytes already in memory."""
    if isinstance(source, bytes):
        name, data = "the upload", source
    else:
        path = Path(source)
        name, data = path.name, _read_regular_file(path, limits.max_bytes)
    if len(data) > limits.max_bytes:
        raise UnsafeFile(
            f"{name} has more than {limits.max_bytes} bytes, which is max_bytes; send a smaller or "
            "compressed file"
        )
    return name, data


def read_start(path: str | Path, length: int = 16) -> bytes:
    """Return the first bytes of a regular file, which tell its format.

    Raises InvalidInput if it cannot be opened, UnsafeFile if it is not a regular file.
    """
    return _read_regular_file(Path(path), length)[:length]


def _read_regular_file(path: Path, max_bytes: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnsafeFile(f"{path} is not a regular file; name a PNG, JPEG or DICOM file")
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)  # the size may change after a look at it
    except (OSError, ValueError) as error:
        if isinstance(error, MedphantomError):
            raise
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise InvalidInput(f"{path} cannot be opened: {reason}; check the path") from error


@contextmanager
def boundary(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a bad file into UnsafeFile.

    The library's own message stays in the cause only: it may quote the file's content.
    """
    try:
        yield
    except MedphantomError:
        raise
    except Exception as error:
        raise UnsafeFile(
            f"{name} cannot be decoded ({type(error).__name__}), but a file must be complete and "
            "follow its format; it looks truncated or damaged, export it again"
        ) from error
