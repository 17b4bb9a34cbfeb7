"""Stored DICOM values to grey as it is meant to be looked at, and the size of a pixel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi

from gen.data.dicom_elements import has, one_of, real
from gen.errors import UnsafeFile

Floats = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2


def grey(
    name: str, dataset: Dataset, stored: NDArray[Any], occurring: tuple[int, int] | None = None
) -> Floats:
    """Turn stored values (H, W) or (H, W, 3) into pixels (H, W) in [0, 1].

    Args:
        name: for messages.
        dataset: elements of the frame: bits, rescale, window, lookup tables.
        stored: as decoded.
        occurring: (lowest, highest) stored value of all frames; None: of `stored`.
    """
    if dataset.SamplesPerPixel == 3:
        return stored.astype(np.float32) @ _LUMA / np.float32(2**dataset.BitsStored - 1)
    values, low, high = _rescaled(
        name, dataset, stored, occurring or (int(stored.min()), int(stored.max()))
    )
    if dataset.get("VOILUTSequence"):
        pixels = apply_voi(np.rint(values).astype(np.int32), dataset).astype(np.float32)
        pixels /= np.float32(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif has(dataset, "WindowWidth") and has(dataset, "WindowCenter"):
        pixels = _windowed(name, dataset, values)
    else:
        pixels = (values - np.float32(low)) / np.float32((high - low) or 1)
    return 1 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _rescaled(
    name: str, dataset: Dataset, stored: NDArray[Any], occurring: tuple[int, int]
) -> tuple[Floats, float, float]:
    """Return (values, lowest, highest) after the modality transform."""
    if dataset.get("ModalityLUTSequence"):
        highest = 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        return apply_modality_lut(stored, dataset).astype(np.float32), 0.0, float(highest)
    slope = real(name, dataset, "RescaleSlope", default=1.0)
    intercept = real(name, dataset, "RescaleIntercept", default=0.0)
    if slope == 0:
        raise UnsafeFile(f"{name} has RescaleSlope 0, but every pixel would be equal; remove it")
    ends = occurring if dataset.PixelRepresentation == 1 else (0, 2**dataset.BitsStored - 1)
    low, high = sorted(end * slope + intercept for end in ends)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), low, high


def _windowed(name: str, dataset: Dataset, values: Floats) -> Floats:
    """Apply the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3), to [0, 1]."""
    center, width = real(name, dataset, "WindowCenter"), real(name, dataset, "WindowWidth")
    function = one_of(
        name, dataset, "VOILUTFunction", ("LINEAR", "LINEAR_EXACT", "SIGMOID"), default="LINEAR"
    )
    if width < 1 and (function == "LINEAR" or width <= 0):
        raise UnsafeFile(f"{name} has WindowWidth {width:g}, but {function} needs more; correct it")
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - np.float32(center)) / np.float32(width), -80, 80)
        return np.asarray(1 / (1 + np.exp(exponent)), dtype=np.float32)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > np.float32(center)).astype(np.float32)
    return np.clip((values - np.float32(center)) / np.float32(width) + np.float32(0.5), 0, 1)


def pixel_spacing(name: str, dataset: Dataset) -> tuple[float, float] | None:
    """Calibrated spacing if given, else that of the detector, in mm."""
    value = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if not value:
        return None
    rows, columns = (float(number) for number in value)
    if not (0 < rows < float("inf") and 0 < columns < float("inf")):
        raise UnsafeFile(f"{name} has a pixel spacing of {rows:g} x {columns:g} mm; correct it")
    return rows, columns


def modality(dataset: Dataset) -> str | None:
    """DICOM Modality such as "DX"; None where the file does not say."""
    return str(dataset.get("Modality") or "") or None
