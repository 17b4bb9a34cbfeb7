"""Parquet with the images inside: `load_dataset("parquet", data_files=...)`, pandas, DuckDB."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gen.data.samples import MASK, TRAIN, Sample
from jobs.exports.rows import COLUMNS, GROUP, ORIGIN, row_of

ROWS = 256  # of a row group, which is read at once
_FILE_GROUPS = 16


def write_parquet(samples: Iterable[Sample], out: Path) -> None:
    """train-00000.parquet and so on; `image` and `mask` are images to Hugging Face's readers."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema, coming = _schema(), iter(samples)
    groups = iter(lambda: list(islice(coming, ROWS)), [])
    for index, first in enumerate(groups):
        with ParquetWriter(out / f"{TRAIN}-{index:05d}.parquet", schema) as writer:
            for group in (first, *islice(groups, _FILE_GROUPS - 1)):
                writer.write_table(pa.Table.from_pylist(list(_rows(group)), schema))


def _rows(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        mask = sample.files.get(MASK)
        yield {
            "image": _cell(sample.files[sample.picture], f"{sample.key}.{sample.picture}"),
            "mask": None if mask is None else _cell(mask, f"{sample.key}.{MASK}"),
            **row_of(sample),
        }


def _cell(data: bytes, name: str) -> dict[str, Any]:
    return {"bytes": data, "path": name}


def _schema() -> Any:
    import pyarrow as pa

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"labels": pa.list_(pa.string()), "seed": pa.int64(), "synthetic": pa.bool_()}
    names = (*COLUMNS, *ORIGIN, *GROUP, "synthetic", "split", "gates", "record")
    fields = {name: kinds.get(name, pa.string()) for name in names}
    features = {"image": {"_type": "Image"}, "mask": {"_type": "Image"}}
    for name, kind in fields.items():
        value = {"dtype": str(kind), "_type": "Value"}
        features[name] = value
    features["labels"] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}  # type: ignore[dict-item]
    said = json.dumps({"info": {"features": features}})
    return pa.schema({"image": picture, "mask": picture, **fields}, metadata={"huggingface": said})
