"""DICOM pictures (CR, DX, SC and alike): read within limits, written as synthetic objects."""

from itertools import islice
from math import isfinite
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.filewriter import dcmwrite
from pydicom.pixels import apply_modality_lut, apply_voi, pixel_array

from gen.data.atomic import atomic_file
from gen.data.dicom_header import parse_dicom, quiet
from gen.data.dicom_object import SopClass, build_dicom
from gen.data.limits import Limits, Source, boundary, read_bytes
from gen.data.medical_image import MedicalImage
from gen.data.pictures import open_picture
from gen.data.provenance import Record
from gen.errors import UnsafeFile

Floats = NDArray[np.float32]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2
_MAX_FRAGMENTS = 4096


def read_dicom(source: Source, limits: Limits | None = None) -> MedicalImage:
    """Read a DICOM file as it is meant to be looked at; of several frames, the first.

    Rescale, then lookup table or window, then MONOCHROME1 inverted. Without a window, unsigned
    pixels span all of their stored bits, and signed ones the values that occur.
    """
    limits = limits or Limits()
    name, data = read_bytes(source, limits)
    return dicom_image(name, data, limits)


def write_dicom(
    path: str | Path,
    pixels: NDArray[np.floating],
    record: Record,
    *,
    sop_class: SopClass = "DX",
    bits: int = 16,
    spacing_mm: tuple[float, float] | None = None,
    view: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write pixels (H, W) in [0, 1] as a DICOM object that says throughout that it is synthetic.

    Args:
        path: appears whole or not at all.
        pixels: bright where X-rays are absorbed (MONOCHROME2).
        record: kept in a private block; decides every UID, so writing again gives equal bytes.
        sop_class: "DX" for training, or "SC" (Secondary Capture) for viewing and other modalities.
        bits: 8 or 16.
        spacing_mm: (rows, columns); None means unknown, see `build_dicom`.
        view: "AP", "PA", "LL", "RL" or None.
        overwrite: replace an existing file.
    """
    with atomic_file(path, overwrite=overwrite) as stream:
        encode_dicom(
            stream, pixels, record, sop_class=sop_class, bits=bits, spacing_mm=spacing_mm, view=view
        )


def encode_dicom(
    stream: BinaryIO, pixels: NDArray[np.floating], record: Record, **kinds: Any
) -> None:
    """Write into an open stream what `write_dicom` writes; `kinds` as `build_dicom` takes them."""
    dcmwrite(stream, build_dicom(pixels, record, **kinds), enforce_file_format=True)


def dicom_image(name: str, data: bytes, limits: Limits) -> MedicalImage:
    """Read the bytes of a DICOM file; `name` is for messages."""
    dataset = parse_dicom(name, data)
    with boundary(name), quiet():
        _check_pixels(name, dataset, limits)
        stored = pixel_array(dataset, index=0)
        return MedicalImage(
            pixels=_grey(name, dataset, stored),
            bits=int(dataset.BitsStored),
            spacing_mm=_spacing(name, dataset),
            modality=str(dataset.get("Modality") or "") or None,
            source=name,
        )


def _check_pixels(name: str, dataset: Dataset, limits: Limits) -> None:
    """Check every number that decides what decoding costs, then the pixel data against them."""
    rows, columns = _number(name, dataset, "Rows"), _number(name, dataset, "Columns")
    frames = _number(name, dataset, "NumberOfFrames", default=1)
    limits.check_shape(name, columns, rows, frames)
    photometric = _one_of(name, dataset, "PhotometricInterpretation", (*_GREY, *_COLOUR))
    samples = 1 if photometric in _GREY else 3
    _one_of(name, dataset, "SamplesPerPixel", (samples,))
    allocated = _one_of(name, dataset, "BitsAllocated", (8, 16))
    _one_of(name, dataset, "PixelRepresentation", (0, 1))
    stored = _one_of(name, dataset, "BitsStored", tuple(range(1, allocated + 1)))
    _one_of(name, dataset, "HighBit", (stored - 1,))
    if not dataset.get("PixelData"):
        raise UnsafeFile(f"{name} has no PixelData, but a picture is needed; is it truncated?")
    if dataset.file_meta.TransferSyntaxUID in (uid.RLELossless, uid.JPEGBaseline8Bit):
        _check_frame(name, dataset, limits)
        return
    expected = rows * columns * frames * samples * allocated // 8
    if photometric == "YBR_FULL_422":
        raise UnsafeFile(f"{name} is uncompressed YBR_FULL_422, which is not read; convert to RGB")
    if len(dataset.PixelData) < expected:
        raise UnsafeFile(
            f"{name} is truncated: it holds {len(dataset.PixelData)} bytes of pixels, but its "
            f"header declares {expected}; export it again"
        )


def _check_frame(name: str, dataset: Dataset, limits: Limits) -> None:
    """Check the one compressed frame, and drop the offset tables and fragments around it."""
    if _number(name, dataset, "NumberOfFrames", default=1) != 1:
        raise UnsafeFile(f"{name} has compressed frames, but only one can be read; split it first")
    fragments = generate_fragments(dataset.PixelData)
    next(fragments, None)  # the basic offset table
    frame = b"".join(islice(fragments, _MAX_FRAGMENTS))
    if next(fragments, None) is not None:
        raise UnsafeFile(f"{name} has more than {_MAX_FRAGMENTS} fragments; export it uncompressed")
    if dataset.file_meta.TransferSyntaxUID == uid.RLELossless:
        _check_rle(name, dataset, frame)
    else:
        _check_jpeg(name, dataset, frame, limits)
    dataset.PixelData = encapsulate([frame], has_bot=False)
    dataset["PixelData"].is_undefined_length = True


def _check_jpeg(name: str, dataset: Dataset, frame: bytes, limits: Limits) -> None:
    picture = open_picture(f"the JPEG inside {name}", frame, limits)
    mode = "L" if dataset.SamplesPerPixel == 1 else "RGB"
    if picture.format != "JPEG" or "mp" in picture.info or picture.mode != mode:
        raise UnsafeFile(f"{name} must hold one {mode} JPEG; export it uncompressed")
    if picture.size != (dataset.Columns, dataset.Rows) or dataset.BitsAllocated != 8:
        raise UnsafeFile(
            f"{name} declares {dataset.Columns} x {dataset.Rows} pixels of {dataset.BitsAllocated} "
            f"bits, but the JPEG inside has {picture.size[0]} x {picture.size[1]} of 8; export it "
            "uncompressed"
        )


def _check_rle(name: str, dataset: Dataset, frame: bytes) -> None:
    """Add up what each segment expands to (PS3.5 Annex G): two bytes may become 128."""
    count, *offsets = unpack("<16L", frame[:64])
    if count != dataset.SamplesPerPixel * dataset.BitsAllocated // 8:
        raise UnsafeFile(
            f"{name} has {count} RLE segments, which does not fit its samples and bits"
        )
    ends = [*offsets[1:count], len(frame)]
    most = dataset.Rows * dataset.Columns + 128  # and the padding of the last run
    for start, end in zip(offsets[:count], ends, strict=True):
        if not 64 <= start <= end <= len(frame) or _expands_beyond(frame, start, end, most):
            raise UnsafeFile(
                f"{name} has an RLE segment larger than the {most} bytes that its header declares; "
                "export it uncompressed"
            )


def _expands_beyond(frame: bytes, position: int, end: int, most: int) -> bool:
    size = 0
    while position < end and size <= most:
        head = frame[position]
        size += 0 if head == 128 else head + 1 if head < 128 else 257 - head
        position += 1 if head == 128 else head + 2 if head < 128 else 2
    return size > most


def _grey(name: str, dataset: Dataset, stored: NDArray[Any]) -> Floats:
    """Turn stored values (H, W) or (H, W, 3) into pixels (H, W) in [0, 1]."""
    if dataset.SamplesPerPixel == 3:
        return stored.astype(np.float32) @ _LUMA / np.float32(2**dataset.BitsStored - 1)
    values, low, high = _rescaled(name, dataset, stored)
    if dataset.get("VOILUTSequence"):
        pixels = apply_voi(np.rint(values).astype(np.int32), dataset).astype(np.float32)
        pixels /= np.float32(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif _has(dataset, "WindowWidth") and _has(dataset, "WindowCenter"):
        pixels = _windowed(name, dataset, values)
    else:
        pixels = (values - np.float32(low)) / np.float32((high - low) or 1)
    return 1 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _rescaled(name: str, dataset: Dataset, stored: NDArray[Any]) -> tuple[Floats, float, float]:
    """Return (values, lowest, highest) after the modality transform."""
    if dataset.get("ModalityLUTSequence"):
        highest = 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        return apply_modality_lut(stored, dataset).astype(np.float32), 0.0, float(highest)
    slope = _real(name, dataset, "RescaleSlope", default=1.0)
    intercept = _real(name, dataset, "RescaleIntercept", default=0.0)
    if slope == 0:
        raise UnsafeFile(f"{name} has RescaleSlope 0, but every pixel would be equal; remove it")
    ends = (0, 2**dataset.BitsStored - 1)
    if dataset.PixelRepresentation == 1:
        ends = (int(stored.min()), int(stored.max()))
    low, high = sorted(end * slope + intercept for end in ends)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), low, high


def _windowed(name: str, dataset: Dataset, values: Floats) -> Floats:
    """Apply the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3), to [0, 1]."""
    center, width = _real(name, dataset, "WindowCenter"), _real(name, dataset, "WindowWidth")
    function = _one_of(
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


def _spacing(name: str, dataset: Dataset) -> tuple[float, float] | None:
    """Calibrated spacing if given, else that of the detector, in mm."""
    value = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if not value:
        return None
    rows, columns = (float(number) for number in value)
    if not (0 < rows < float("inf") and 0 < columns < float("inf")):
        raise UnsafeFile(f"{name} has a pixel spacing of {rows:g} x {columns:g} mm; correct it")
    return rows, columns


def _has(dataset: Dataset, keyword: str) -> bool:
    return dataset.get(keyword) not in (None, "")


def _number(name: str, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    if value in (None, "") and default is not None:
        return default
    if not isinstance(value, int):
        raise UnsafeFile(f"{name} has no single {keyword}, but it is needed; is it truncated?")
    return int(value)


def _real(name: str, dataset: Dataset, keyword: str, default: float | None = None) -> float:
    value = dataset.get(keyword)
    if value in (None, "") and default is not None:
        return default
    first = value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value
    if not isfinite(number := float(first)):
        raise UnsafeFile(f"{name} has {keyword} {number}, but it must be finite; correct it")
    return number


def _one_of(
    name: str, dataset: Dataset, keyword: str, allowed: tuple[Any, ...], default: Any = None
) -> Any:
    value = dataset.get(keyword) or default if default else dataset.get(keyword)
    if value not in allowed:
        shown = str(value)[:32] if value is not None else "missing"
        rule = " or ".join(map(str, allowed)) if len(allowed) < 6 else f"at most {allowed[-1]}"
        raise UnsafeFile(f"{name} has {keyword} {shown}, but it must be {rule}; convert the file")
    return value
