"""A folder of DICOM objects that say they are synthetic, with masks as segmentations of them."""

import json
from collections.abc import Iterable
from pathlib import Path

from gen.data.dicom_derived import encode
from gen.data.dicom_object import build_dicom
from gen.data.dicom_segmentation import build_segmentation
from gen.data.images import read_image
from gen.data.manifest import METADATA
from gen.data.provenance import Record
from gen.data.samples import MASK, Sample
from gen.errors import InvalidInput
from jobs.exports.masks import mask_of, shown_by
from jobs.exports.rows import row_of

VIEWS = ("AP", "PA")


def write_dicom_folder(samples: Iterable[Sample], out: Path) -> None:
    """KEY.dcm, KEY.mask.dcm and metadata.jsonl.

    Raises:
        InvalidInput: a sample is in colour, or its row has no record.
    """
    with (out / METADATA).open("w", encoding="utf-8") as table:
        for sample in samples:
            row = {"file_name": f"{sample.key}.dcm", **row_of(sample)}
            _write(sample, out)
            if MASK in sample.files:
                row["mask_file_name"] = f"{sample.key}.mask.dcm"
            table.write(json.dumps(row) + "\n")


def _write(sample: Sample, out: Path) -> None:
    if "dcm" in sample.files:
        (out / f"{sample.key}.dcm").write_bytes(sample.files["dcm"])
        return
    if "png" not in sample.files:
        raise InvalidInput(
            f"sample {sample.key} is a {sample.picture}, but DICOM is written of grey PNG images; "
            "export to webdataset"
        )
    image = read_image(sample.files["png"])
    record = Record.model_validate(sample.meta["record"])
    view = (sample.meta.get("group") or {}).get("view")
    dataset = build_dicom(
        image.pixels, record, bits=16 if image.bits > 8 else 8, view=view if view in VIEWS else None
    )
    with (out / f"{sample.key}.dcm").open("wb") as stream:
        encode(stream, dataset)
    mask = mask_of(sample)
    if mask is not None:
        segmentation = build_segmentation(mask, [dataset], record, label=shown_by(sample))
        with (out / f"{sample.key}.mask.dcm").open("wb") as stream:
            encode(stream, segmentation)
