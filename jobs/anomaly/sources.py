"""What maps of anomalies are made of: pictures, DICOM objects and volumes, as grey planes."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gen.data.limits import STACK_LIMITS, read_bytes, read_start
from gen.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from gen.data.nifti import Volume

PICTURES = (".png", ".jpg", ".jpeg")
VOLUMES = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"
_DICOM_START = 132


@dataclass(frozen=True, eq=False)
class Scan:
    """A source that was read.

    Args:
        name: of its file, for messages.
        sha256: of its file.
        planes: (N, H, W) float32 in [0, 1], bright where X-rays are absorbed: frames, or the
            slices of a volume as `gen.data.volume_axes` shows them.
        dicom: its identity and geometry, if it is a DICOM object.
        volume: if it is one.
    """

    name: str
    sha256: str
    planes: "NDArray[np.float32]"
    dicom: "Dataset | None" = None
    volume: "Volume | None" = None

    @property
    def stacked(self) -> bool:
        """Whether it has slices or frames, rather than being one picture."""
        return self.volume is not None or len(self.planes) > 1


def list_sources(paths: Iterable[Path], out: Path) -> list[Path]:
    """The files that are named, and those of the folders that are named, in order and once.

    Of folders all PNG, JPEG, DICOM and NIfTI files below, without hidden ones and those in `out`.

    Raises:
        InvalidInput: a path is not there, or nothing is left.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"{path} does not exist; check the path")
        for file in _below(path, out.resolve()) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    if not found:
        raise InvalidInput(
            "no PNG, JPEG, DICOM or NIfTI file is in what was named; name files, or folders of them"
        )
    return list(found.values())


def _below(folder: Path, out: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        own = path.resolve().is_relative_to(out)
        if not (hidden or own) and path.is_file() and _is_readable(path):
            yield path


def _is_readable(path: Path) -> bool:
    """By its name, or as many an archive exports DICOM: without a suffix."""
    name = path.name.lower()
    if name.endswith((*PICTURES, *VOLUMES, ".dcm")):
        return True
    return not path.suffix and read_start(path, _DICOM_START)[128:] == b"DICM"


def stem_of(path: Path) -> str:
    """A file's name without its suffix, of .nii.gz without both."""
    name = path.name
    for suffix in (".nii.gz", path.suffix):
        if suffix and name.lower().endswith(suffix.lower()) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def read_file(path: Path) -> bytes:
    """The content of a source.

    Raises:
        InvalidInput: it cannot be opened.
        UnsafeFile: it is larger than any scan that is read.
    """
    return read_bytes(path, STACK_LIMITS)[1]


def read_scan(name: str, data: bytes) -> Scan:
    """Read a PNG, JPEG, DICOM or NIfTI file; the content tells the format.

    Raises:
        UnsafeFile: the file is too large, of another format, damaged, or constant.
        InvalidInput: a DICOM object lacks its identity, or is itself the result of an analysis.
    """
    from gen.data.dicom import read_frames
    from gen.data.dicom_source import read_source
    from gen.data.images import read_image
    from gen.data.nifti import read_nifti
    from jobs.pacs.retrieval import read_marks
    from jobs.pacs.search import is_result

    sha256 = hashlib.sha256(data).hexdigest()
    if data[128:_DICOM_START] == b"DICM":
        if is_result(read_marks(data)):
            raise InvalidInput(
                f"{name} is itself the result of an analysis; name the picture it was made of"
            )
        return Scan(name, sha256, read_frames(data).pixels, dicom=read_source(data))
    if data.startswith(_GZIP) or name.lower().endswith(VOLUMES):
        volume = read_nifti(data)
        return Scan(name, sha256, volume.slices, volume=volume)
    return Scan(name, sha256, read_image(data).pixels[None])
