"""Single DICOM elements: read by a rule, written within their value representation."""

from math import isfinite
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code

from gen.errors import UnsafeFile


def has(dataset: Dataset, keyword: str) -> bool:
    """Tell whether the element is there with a value."""
    return dataset.get(keyword) not in (None, "", [])


def number(name: str, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an element that holds one whole number; `default` if it is missing or empty."""
    value = dataset.get(keyword)
    if value in (None, "") and default is not None:
        return default
    if not isinstance(value, int):
        raise UnsafeFile(f"{name} has no single {keyword}, but it is needed; is it truncated?")
    return int(value)


def real(name: str, dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """Return an element's first number, which is finite; `default` if it is missing or empty."""
    value = dataset.get(keyword)
    if value in (None, "") and default is not None:
        return default
    first = value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value
    if not isfinite(finite := float(first)):
        raise UnsafeFile(f"{name} has {keyword} {finite}, but it must be finite; correct it")
    return finite


def one_of(
    name: str, dataset: Dataset, keyword: str, allowed: tuple[Any, ...], default: Any = None
) -> Any:
    """Return an element whose value is one of those allowed; `default` if it is missing."""
    value = dataset.get(keyword) or default if default else dataset.get(keyword)
    if value not in allowed:
        shown = str(value)[:32] if value is not None else "missing"
        rule = " or ".join(map(str, allowed)) if len(allowed) < 6 else f"at most {allowed[-1]}"
        raise UnsafeFile(f"{name} has {keyword} {shown}, but it must be {rule}; convert the file")
    return value


def coded(code: Code) -> Sequence:
    """One code as the single item of a code sequence."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return Sequence([item])


def decimals(values: tuple[float, float]) -> list[str]:
    """Decimal strings: at most 16 characters each."""
    return [f"{value:.9g}" for value in values]


def shorten(text: str, length: int) -> str:
    """Fit a value representation; a backslash would split it, a control character is forbidden."""
    clean = "".join(" " if ord(char) < 32 else char for char in text.replace("\\", "/"))
    return clean.strip() if len(clean) <= length else clean[: length - 3].strip() + "..."
