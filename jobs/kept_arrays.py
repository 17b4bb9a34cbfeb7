"""Arrays that cost time, each made once: a file's name is the hash of all it depends on."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.data.atomic import atomic_file

if TYPE_CHECKING:  # torch and NumPy are imported when something is made
    from numpy.typing import NDArray
    from torch import Tensor


def identity_of(settings: object, pixels: "Iterable[Tensor]") -> str:
    """The hash of settings, by their representation, and of pictures."""
    digest = hashlib.sha256(repr(settings).encode())
    for each in pixels:
        digest.update(repr(tuple(each.shape)).encode())
        digest.update(each.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


class KeptArrays:
    """Arrays in a folder, which is made if missing; one that a killed run left torn is not seen."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def has(self, identity: str) -> bool:
        """Whether it was made before."""
        return self._file(identity).exists()

    def get(self, identity: str, make: "Callable[[], NDArray[Any]]") -> "NDArray[Any]":
        """What was made before, or is made now."""
        import numpy as np

        if not self.has(identity):
            made = make()
            with atomic_file(self._file(identity)) as stream:
                np.save(stream, made)
        kept: NDArray[Any] = np.load(self._file(identity), allow_pickle=False)
        return kept

    def _file(self, identity: str) -> Path:
        return self._folder / f"{identity}.npy"
