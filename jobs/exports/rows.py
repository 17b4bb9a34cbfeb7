"""What tables say of a sample: the same columns in every format."""

import json
from typing import Any

from gen.data.samples import Sample

COLUMNS = ("id", "labels", "prompt", "seed", "operation", "model", "weight_sha256")
ORIGIN = ("source", "source_sha256")
GROUP = ("sex", "age_group", "view")


def row_of(sample: Sample) -> dict[str, Any]:
    """A sample's row with the same columns for all, since tables have one schema.

    What differs from sample to sample, its gates and its record, is JSON in a cell.
    """
    meta = sample.meta
    group = meta.get("group") or {}
    return {
        **{name: meta.get(name) for name in COLUMNS},
        "labels": list(meta.get("labels") or []),
        **{name: meta.get(name) for name in ORIGIN},
        **{name: group.get(name) for name in GROUP},
        "synthetic": True,
        "split": meta["split"],
        "gates": json.dumps(meta.get("gates") or [], sort_keys=True),
        "record": json.dumps(meta.get("record") or {}, sort_keys=True),
    }
