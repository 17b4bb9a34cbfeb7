"""Grey medical pictures, one or a stack, with what is known of their pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput, UnsafeFile


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """A picture as it should be looked at: air dark, bone bright.

    Args:
        pixels: (H, W) float32 in [0, 1], finite and not constant.
        bits: grey depth of the file, 8 to 16; `pixels` is a multiple of 1 / (2**bits - 1) unless
            a window or a lookup table was applied.
        spacing_mm: (between rows, between columns), None where the file does not say.
        modality: DICOM Modality such as "DX", None for PNG and JPEG.
        source: file name, for messages and records.
    """

    pixels: NDArray[np.float32]
    bits: int
    spacing_mm: tuple[float, float] | None
    modality: str | None
    source: str

    def __post_init__(self) -> None:
        _check(self.source, self.pixels, 2)


@dataclass(frozen=True, eq=False)
class ImageStack:
    """The frames of one file, in its order, all of one shape; see `MedicalImage`.

    Args:
        pixels: (F, H, W) float32 in [0, 1], finite; a single frame may be constant.
        bits, spacing_mm, modality, source: as of a `MedicalImage`.
    """

    pixels: NDArray[np.float32]
    bits: int
    spacing_mm: tuple[float, float] | None
    modality: str | None
    source: str

    def __post_init__(self) -> None:
        _check(self.source, self.pixels, 3)


def _check(source: str, pixels: NDArray[np.float32], dimensions: int) -> None:
    if pixels.ndim != dimensions or pixels.size == 0:
        axes = "(H, W)" if dimensions == 2 else "(F, H, W)"
        raise UnsafeFile(f"{source} has shape {pixels.shape}, but {axes} is needed")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(pixels).all():
        raise UnsafeFile(
            f"{source} has pixels that are NaN or infinite; check its rescale and window"
        )
    if low == high:
        raise UnsafeFile(
            f"{source} is constant (every pixel is {low:.4g}), but a picture needs contrast; "
            "check its window, or leave it out"
        )


def to_integers(pixels: NDArray[np.floating], bits: int) -> NDArray[np.uint8 | np.uint16]:
    """Round pixels (H, W) in [0, 1] to 8 or 16 bits; raise InvalidInput on anything else.

    Going to 8 bits rescales: Pillow's own conversion of 16-bit grey saturates instead.
    """
    pixels = np.asarray(pixels)
    if bits not in (8, 16):
        raise InvalidInput(f"bits is {bits}, but 8 or 16 can be written")
    if pixels.ndim != 2 or pixels.size == 0:
        raise InvalidInput(f"pixels has shape {pixels.shape}, but (H, W) is needed")
    if not np.isfinite(pixels).all():
        raise InvalidInput("pixels holds NaN or infinity, but every value must lie in [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise InvalidInput(
            f"pixels spans [{low:.4g}, {high:.4g}], but every value must lie in [0, 1]; rescale or "
            "clip first"
        )
    levels = np.rint(pixels.astype(np.float64) * (2**bits - 1))
    return levels.astype(np.uint8 if bits == 8 else np.uint16)
