"""What answers in DICOM JSON (PS3.18 annex F) say, whatever else a server may have sent."""

from typing import Any

from pydicom.datadict import tag_for_keyword

Row = dict[str, Any]
"""One object, or a part of one."""


def values_of(row: Row, keyword: str) -> list[Any]:
    """All values of an attribute; none if it is not there, or the row is no DICOM JSON."""
    element = row.get(f"{tag_for_keyword(keyword):08X}") if isinstance(row, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def value_of(row: Row, keyword: str) -> Any:
    """The first value of an attribute, or None."""
    return next(iter(values_of(row, keyword)), None)
