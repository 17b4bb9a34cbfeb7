"""Whom an image shows, as groups that every measure can be split by."""

from collections import defaultdict
from collections.abc import Sequence

from gen.data.captions import Labels

AXES = ("finding", "view", "sex", "age group")


def groups_of(labels: Labels | None) -> dict[str, tuple[str, ...]]:
    """The groups one image belongs to on each of `AXES`; an axis nobody spoke of is left out."""
    if labels is None:
        return {}
    groups = {"finding": labels.findings, "age group": ("child" if labels.child else "adult",)}
    if labels.view is not None:
        groups["view"] = (labels.view,)
    if labels.sex is not None:
        groups["sex"] = ({"M": "male", "F": "female"}.get(labels.sex, labels.sex),)
    return groups


def rows_by_group(labels: Sequence[Labels | None]) -> dict[str, dict[str, list[int]]]:
    """Rows of every group on every axis, groups in alphabetical order."""
    rows: dict[str, defaultdict[str, list[int]]] = {axis: defaultdict(list) for axis in AXES}
    for row, each in enumerate(labels):
        for axis, names in groups_of(each).items():
            for name in names:
                rows[axis][name].append(row)
    return {axis: dict(sorted(found.items())) for axis, found in rows.items()}
