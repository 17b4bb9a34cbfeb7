"""What is written of a scan that was mapped: the map, pictures for eyes, and objects for a PACS."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput
from jobs.anomaly.mapper import Mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.provenance import Record
    from pipelines.outputs import AnomalyMap


class Format(StrEnum):
    """What can be written; the map as .npy always is."""

    NPY = "npy"
    PNG = "png"
    DICOM_SEG = "dicom-seg"
    DICOM_OVERLAY = "dicom-overlay"
    NIFTI = "nifti"


SUFFIXES = {
    "map": ".npy",
    "overlay": ".overlay.png",
    "healthy": ".healthy.png",
    "segmentation": ".seg.dcm",
    "dicom_overlay": ".overlay.dcm",
    "volume": ".map.nii.gz",
}
_FULL_HEAT = 2.0  # times the threshold


def parse_formats(text: str | None) -> tuple[str, ...] | None:
    """Names of text such as "npy,png"; None where nothing is said.

    Raises:
        InvalidInput: there is no such format.
    """
    if text is None:
        return None
    names = sorted({each.strip() for each in text.split(",") if each.strip()} | {Format.NPY.value})
    unknown = [name for name in names if name not in [each.value for each in Format]]
    if unknown:
        raise InvalidInput(
            f"format is {text!r}, but must be some of: {', '.join(each.value for each in Format)}"
        )
    return tuple(names)


def formats_for(mapped: Mapped, formats: tuple[str, ...] | None) -> list[Format]:
    """Those that were asked for and a source can have; DICOM needs DICOM, NIfTI a volume."""
    scan = mapped.scan
    possible = [Format.NPY, Format.PNG]
    possible += [] if scan.dicom is None else [Format.DICOM_SEG, Format.DICOM_OVERLAY]
    possible += [] if scan.volume is None else [Format.NIFTI]
    return [each for each in possible if formats is None or each.value in formats]


def write_files(
    out: Path, name: str, mapped: Mapped, record: "Record", formats: list[Format]
) -> dict[str, str]:
    """Write the results of a scan as <out>/<name>.*, each whole or not at all.

    Of several planes the most unusual is drawn, the map and the segmentation have all.

    Returns:
        Paths by what they are, as `SUFFIXES` names them.
    """
    makers: dict[Format, dict[str, Callable[[Path], None]]] = {
        Format.NPY: {"map": lambda path: _write_map(path, mapped)},
        Format.PNG: {
            "overlay": lambda path: _write_overlay(path, mapped, record),
            "healthy": lambda path: _write_healthy(path, mapped, record),
        },
        Format.DICOM_SEG: {"segmentation": lambda path: _write_segmentation(path, mapped, record)},
        Format.DICOM_OVERLAY: {"dicom_overlay": lambda path: _write_capture(path, mapped, record)},
        Format.NIFTI: {"volume": lambda path: _write_volume(path, mapped, record)},
    }
    files = {}
    for each in formats:
        for what, make in makers[each].items():
            path = out / f"{name}{SUFFIXES[what]}"
            make(path)
            files[what] = str(path)
    return files


def most_unusual(mapped: Mapped) -> int:
    """The plane of the largest score, from 0."""
    scores = [each.score for each in mapped.maps]
    return scores.index(max(scores))


def heat_of(found: "AnomalyMap") -> "NDArray[np.float32]":
    """The map (H, W) in [0, 1]: from nothing at half the threshold to all at twice of it."""
    import numpy as np

    low, high = found.threshold / 2, found.threshold * _FULL_HEAT
    if high == 0:
        low, high = 0.0, max(float(found.map.max()), 1e-9)
    return np.clip((found.map - low) / (high - low), 0, 1).astype(np.float32)


def _drawn(mapped: Mapped) -> "NDArray[np.uint8]":
    from gen.data.heat_overlay import heat_overlay

    index = most_unusual(mapped)
    found = mapped.maps[index]
    return heat_overlay(mapped.scan.planes[index], heat_of(found), found.mask)


def _stack(mapped: Mapped) -> "NDArray[np.float32]":
    import numpy as np

    return np.stack([each.map for each in mapped.maps])


def _write_map(path: Path, mapped: Mapped) -> None:
    import numpy as np

    maps = _stack(mapped)
    with atomic_file(path, overwrite=True) as stream:
        np.save(stream, maps if mapped.scan.stacked else maps[0])


def _write_overlay(path: Path, mapped: Mapped, record: "Record") -> None:
    from PIL import Image

    picture = Image.fromarray(_drawn(mapped))
    with atomic_file(path, overwrite=True) as stream:
        picture.save(stream, format="PNG", pnginfo=record.to_png_info())


def _write_healthy(path: Path, mapped: Mapped, record: "Record") -> None:
    from gen.data.images import write_png

    write_png(path, mapped.maps[most_unusual(mapped)].healthy, record, overwrite=True)


def _write_segmentation(path: Path, mapped: Mapped, record: "Record") -> None:
    import numpy as np

    from gen.data.dicom_segmentation import write_segmentation

    assert mapped.scan.dicom is not None
    masks = np.stack([each.mask for each in mapped.maps])
    write_segmentation(path, masks, [mapped.scan.dicom], record, overwrite=True)


def _write_capture(path: Path, mapped: Mapped, record: "Record") -> None:
    from gen.data.dicom_overlay import write_overlay

    assert mapped.scan.dicom is not None
    colours, frame = _drawn(mapped), most_unusual(mapped)
    write_overlay(path, colours, mapped.scan.dicom, record, frame=frame, overwrite=True)


def _write_volume(path: Path, mapped: Mapped, record: "Record") -> None:
    from gen.data.nifti import write_nifti

    assert mapped.scan.volume is not None
    write_nifti(path, _stack(mapped), mapped.scan.volume, record, overwrite=True)
