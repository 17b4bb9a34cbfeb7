"""A shard folder in another format, whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from gen.data.atomic import sync_folder
from gen.data.samples import Sample, read_shards, shards_in
from gen.errors import InvalidInput
from jobs.exports.coco import write_coco
from jobs.exports.dicom import write_dicom_folder
from jobs.exports.imagefolder import write_imagefolder
from jobs.exports.monai import write_monai
from jobs.exports.nnunet import write_nnunet
from jobs.exports.parquet import write_parquet
from jobs.exports.webdataset import write_webdataset

Read = Callable[[], Iterable[Sample]]


class ExportFormat(StrEnum):
    """What a data set can be written as."""

    IMAGEFOLDER = "imagefolder"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    MONAI = "monai"
    NNUNET = "nnunet"
    COCO = "coco"
    DICOM = "dicom"


_WRITERS: dict[ExportFormat, Callable[[Read, Path], None]] = {
    ExportFormat.IMAGEFOLDER: lambda read, out: write_imagefolder(read(), out),
    ExportFormat.WEBDATASET: lambda read, out: write_webdataset(read(), out),
    ExportFormat.PARQUET: lambda read, out: write_parquet(read(), out),
    ExportFormat.MONAI: lambda read, out: write_monai(read(), out),
    ExportFormat.NNUNET: write_nnunet,
    ExportFormat.COCO: write_coco,
    ExportFormat.DICOM: lambda read, out: write_dicom_folder(read(), out),
}


def export(
    source: Path,
    out: Path,
    file_format: ExportFormat,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the samples of a shard folder to `out`, which is new.

    Args:
        source: the folder that a job has written.
        out: appears when all is written.
        file_format: see `jobs.exports`.
        report: told how many shards are read, of all.

    Returns:
        The number of samples.

    Raises:
        InvalidInput: `out` exists, `source` has no shard, or a sample does not fit the format.
    """
    if out.exists():
        raise InvalidInput(f"{out} exists and is not overwritten; choose another folder")
    shards, count = shards_in(source), 0

    def read() -> Iterator[Sample]:
        nonlocal count
        count = 0
        for done, shard in enumerate(shards, 1):
            for sample in read_shards([shard]):
                count += 1
                yield sample
            report(done, len(shards))

    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _WRITERS[file_format](read, part)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(out.parent)
    return count
