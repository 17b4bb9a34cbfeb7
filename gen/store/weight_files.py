"""Which safetensors files hold a component's weights, and whether their headers are sound.

A header is read and compared with the file before any library maps the weights.
"""

import json
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from gen.errors import ModelRefused

MAX_HEADER_BYTES = 100 * 1024**2  # the limit of the safetensors format
MAX_JSON_BYTES = 64 * 1024**2  # the largest tokenizer.json in use has about 20 MB
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
DTYPE_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8} | {
    name: int(name.lstrip("BUIF"))
    for name in ("U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64")
}


def read_json(path: Path) -> Any:
    """Parse a JSON file of bounded size."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelRefused(f"{path} has more than {MAX_JSON_BYTES} bytes, too many for a config")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path} is not valid JSON: {error}; fetch the file again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelRefused(f"{path} is not a JSON object; fetch the file again")
    return value


def weight_files(folder: Path, stem: str) -> tuple[str | None, list[Path]]:
    """Find the weights of a component.

    Args:
        folder: the component's folder.
        stem: "model" for transformers, "diffusion_pytorch_model" for diffusers.

    Returns:
        The variant (None, or "fp16" where only that exists) and its files.

    Raises:
        ModelRefused: there are no safetensors; a pickle does not count.
    """
    for variant in (None, "fp16"):
        suffix = f".{variant}" if variant else ""
        index = folder / f"{stem}.safetensors.index{suffix}.json"
        if index.is_file():
            return variant, _shards(index)
        single = folder / f"{stem}{suffix}.safetensors"
        if single.is_file():
            return variant, [single]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelRefused(
            f"{folder / pickles[0]} is a pickle, which can run code when read; convert it to "
            f"safetensors on a machine you can lose, or fetch the model's safetensors"
        )
    raise ModelRefused(f"{folder / stem}.safetensors is missing; fetch the model again")


def _shards(index: Path) -> list[Path]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelRefused(f"{index} has no weight_map; fetch the model again")
    for name in names.values():
        if not isinstance(name, str) or not re.fullmatch(
            r"[A-Za-z0-9_-][\w.-]*\.safetensors", name
        ):
            raise ModelRefused(f"{index}: the path {name!r} is not a safetensors file beside it")
    return [index.parent / name for name in sorted(set(names.values()))]


def check_safetensors(path: Path) -> dict[str, Any]:
    """Check a safetensors header against the file and return it, without reading a weight."""
    if not path.is_file():
        raise ModelRefused(f"{path} is missing; fetch the model again")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise ModelRefused(
                f"{path}: the header claims {length} bytes, the file has {size} and the limit is "
                f"{MAX_HEADER_BYTES}; fetch the file again"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        for name, entry in header.items():
            if name == "__metadata__":
                "".join((*entry.keys(), *entry.values()))  # an object of strings
            else:
                _check_tensor(entry, size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"{path} has a malformed header ({error}); fetch it again") from error
    return header if isinstance(header, dict) else {}


def _check_tensor(entry: Mapping[str, Any], buffer: int) -> None:
    start, end = entry["data_offsets"]
    numbers = (start, end, *entry["shape"])
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or end > buffer:
        raise ValueError("offsets outside the file")
    if prod(entry["shape"]) * DTYPE_BITS[entry["dtype"]] != 8 * (end - start):
        raise ValueError("offsets do not fit the shape")
