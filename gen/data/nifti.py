"""NIfTI volumes: read within limits as slices, and maps of them written on the same voxels."""

import gzip
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gen.data.atomic import atomic_file
from gen.data.limits import STACK_LIMITS, Limits, Source, boundary, read_bytes
from gen.data.provenance import Record
from gen.data.volume_axes import VolumeAxes
from gen.errors import InvalidInput, UnsafeFile

_GZIP = b"\x1f\x8b"
_MAX_HEADER_BYTES = 2**20  # header and extensions, which lie before the voxels
# Signed and unsigned integers up to 64 bits, floats of 32 and 64.
_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
# A hot voxel or two must not make the rest black.
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan as upright slices.

    Args:
        slices: (N, H, W) float32 in [0, 1], in the order and orientation of `axes`.
        window: (low, high) of the file's values, such as Hounsfield units, shown as 0 and 1.
        spacing_mm: between (slices, rows, columns).
        axes: how slices lie in the voxels.
        shape: of the voxels, with the file's axes of length 1.
        affine: (4, 4), from voxels to millimetres.
        header: the file's own.
        source: file name, for messages and records.
    """

    slices: NDArray[np.float32]
    window: tuple[float, float]
    spacing_mm: tuple[float, float, float]
    axes: VolumeAxes
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    header: Any
    source: str


def read_nifti(
    source: Source,
    limits: Limits = STACK_LIMITS,
    *,
    window: tuple[float, float] | None = None,
    axis: int | None = None,
) -> Volume:
    """Read a .nii or .nii.gz file; the content tells which.

    Args:
        source: path, or the bytes of a file.
        limits: sides and voxels, counted as frames of rows and columns, and stored bytes.
        window: (low, high) of the file's values; None: the 0.5th and 99.5th percentile.
        axis: voxel axis to cut along, 0 to 2; None: the one nearest to up and down (axial).

    Raises:
        UnsafeFile: the file is too large, of another format, damaged, constant or not of three
            axes.
        InvalidInput: the file cannot be opened, or an argument breaks its rule.
    """
    if axis not in (None, 0, 1, 2):
        raise InvalidInput(f"axis is {axis}, but must be 0, 1, 2 or None for axial slices")
    if window is not None and not -np.inf < window[0] < window[1] < np.inf:
        raise InvalidInput(f"window is {window}, but must be (low, high) with low below high")
    name, data = read_bytes(source, limits)
    with boundary(name), np.errstate(over="ignore", invalid="ignore"):
        stream: Any = BytesIO(data)
        if data.startswith(_GZIP):
            stream = gzip.GzipFile(fileobj=stream)
        header = _header(name, stream.read(_MAX_HEADER_BYTES))
        shape = _shape(name, header)
        affine = np.asarray(header.get_best_affine(), np.float64)
        axes = VolumeAxes.of(name, affine, axis)
        ordered = [shape[each] for each in axes.order]
        limits.check_shape(name, ordered[2], ordered[1], frames=ordered[0])
        stream.seek(0)
        slices = axes.to_slices(_values(name, header, shape, stream))
        window = window or _window(name, slices)
        _scale(name, slices, window)
        spacing = voxel_sizes(affine)[list(axes.order)]
        return Volume(
            slices=slices,
            window=window,
            spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
            axes=axes,
            shape=tuple(map(int, header.get_data_shape())),
            affine=affine,
            header=header,
            source=name,
        )


def write_nifti(
    path: str | Path,
    slices: NDArray[np.floating],
    volume: Volume,
    record: Record,
    *,
    overwrite: bool = False,
) -> None:
    """Write a map as float32 on the voxels of the volume that it was made from.

    The same arguments give the same bytes. The file's texts, which may name somebody, are not
    repeated; the record is a comment extension.

    Args:
        path: ends in .nii or .nii.gz; appears whole or not at all.
        slices: (N, H, W), a value for each pixel of `volume.slices`, of any range.
        volume: where the map lies.
        record: how the map was made.
        overwrite: replace an existing file.
    """
    compressed = str(path).endswith(".nii.gz")
    if not compressed and not str(path).endswith(".nii"):
        raise InvalidInput(f"path is {path}, but must end in .nii or .nii.gz; rename it")
    if slices.shape != volume.slices.shape:
        raise InvalidInput(
            f"slices have the shape {slices.shape}, but the volume has {volume.slices.shape}; "
            "bring them back to its pixels first"
        )
    voxels = volume.axes.to_voxels(np.asarray(slices, np.float32)).reshape(volume.shape)
    second = isinstance(volume.header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    image = kind(voxels, volume.affine, _map_header(volume, record))
    content = image.to_bytes()
    with atomic_file(path, overwrite=overwrite) as stream:
        if compressed:  # no name and no time in it
            content = gzip.compress(content, mtime=0)
        stream.write(content)


def _header(name: str, start: bytes) -> Any:
    """Parse the header alone, without the extensions that may follow it."""
    kinds = ((nibabel.Nifti1Header, b"n+1"), (nibabel.Nifti2Header, b"n+2"))
    for kind, magic in kinds:
        length = kind.template_dtype.itemsize
        if len(start) >= length + 4 and kind.may_contain_header(start[:length]):
            header = kind(start[:length], check=False)
            if header["magic"].item() == magic:
                return header
    raise UnsafeFile(
        f"{name} is no NIfTI file in one piece; convert it to .nii or .nii.gz, and a pair of .hdr "
        "and .img to one file"
    )


def _shape(name: str, header: Any) -> tuple[int, int, int]:
    """Sides of the voxels; the type is checked too, since both decide what reading costs."""
    sides = [int(side) for side in header.get_data_shape()]
    if len(sides) < 2 or any(side != 1 for side in sides[3:]):
        raise UnsafeFile(f"{name} has the shape {sides}, but one volume is needed; split it first")
    if header.get_data_dtype().str[1:] not in _TYPES:
        raise UnsafeFile(
            f"{name} has voxels of type {header.get_data_dtype()}, but only whole numbers and "
            "floats of at most 64 bits are read; convert it"
        )
    first, second, third = (*sides, 1)[:3]
    return first, second, third


def _values(
    name: str, header: Any, shape: tuple[int, int, int], stream: Any
) -> NDArray[np.float32]:
    """Voxels in the file's own unit; nothing beyond them is expanded."""
    offset = int(header["vox_offset"]) or header.single_vox_offset
    if not header.single_vox_offset <= offset <= _MAX_HEADER_BYTES:
        raise UnsafeFile(
            f"{name} has its voxels at byte {offset}, but at least {header.single_vox_offset} and "
            f"at most {_MAX_HEADER_BYTES} are read; save it again"
        )
    kind = header.get_data_dtype()
    needed = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    stream.seek(offset)
    data = stream.read(needed)
    if len(data) < needed:
        raise UnsafeFile(
            f"{name} is truncated: it holds {len(data)} bytes of voxels, but its header declares "
            f"{needed}; export it again"
        )
    slope, intercept = header.get_slope_inter()
    values = np.frombuffer(data, kind).reshape(shape, order="F").astype(np.float32)
    if slope is not None:
        values *= np.float32(slope)
        values += np.float32(intercept)
    if not np.isfinite(values).all():
        raise UnsafeFile(f"{name} has voxels that are NaN or infinite; set them to a number first")
    return values


def _window(name: str, values: NDArray[np.float32]) -> tuple[float, float]:
    sample = values.ravel()[:: max(1, values.size // 2**22)]
    low, high = (float(value) for value in np.percentile(sample, _PERCENTILES))
    if low < high:
        return low, high
    low, high = float(values.min()), float(values.max())  # a few voxels in an empty volume
    if low == high:
        raise UnsafeFile(
            f"{name} is constant (every voxel is {low:.4g}), but a picture needs contrast; leave "
            "it out"
        )
    return low, high


def _scale(name: str, slices: NDArray[np.float32], window: tuple[float, float]) -> None:
    """Bring values to [0, 1] in place: a scan may take half of the memory."""
    low, high = window
    slices -= np.float32(low)
    slices /= np.float32(high - low)
    np.clip(slices, 0, 1, out=slices)
    if not slices.min() < slices.max():
        raise UnsafeFile(
            f"{name} is constant within the window {low:.4g} to {high:.4g}, but a picture needs "
            "contrast; pass another window"
        )


def _map_header(volume: Volume, record: Record) -> Any:
    header = volume.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = header["intent_code"] = 0
    for text in ("descrip", "aux_file", "intent_name", "db_name"):
        if text in header.keys():  # noqa: SIM118
            header[text] = b""
    header["descrip"] = b"medphantom map, synthetic"
    note = nibabel.nifti1.Nifti1Extension("comment", record.to_json().encode())
    header.extensions[:] = [note]
    return header
