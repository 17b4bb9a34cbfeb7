"""An index of training images as a file, so that every worker need not read all images anew."""

import json
from dataclasses import fields
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput
from gen.metrics.copies import TrainingIndex

INDEX = "index.safetensors"
_TENSORS = [each.name for each in fields(TrainingIndex) if each.name != "patients"]


def write_index(path: Path, index: TrainingIndex, names: list[str]) -> None:
    """Write an index and the names of its images; an older file is replaced.

    It holds patients' images and names: keep it as you keep those.
    """
    tensors = {name: getattr(index, name).contiguous() for name in _TENSORS}
    data = save(tensors, {"patients": json.dumps(index.patients), "names": json.dumps(names)})
    with atomic_file(path, overwrite=True) as stream:
        stream.write(data)


def read_index(path: Path) -> tuple[TrainingIndex, list[str]]:
    """Read an index and the names of its images.

    Raises:
        InvalidInput: there is none, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            metadata = file.metadata()
        patients, names = (json.loads(metadata[key]) for key in ("patients", "names"))
    except Exception as error:  # safetensors has its own errors, and no common root
        raise InvalidInput(f"{path} holds no index of training images; calibrate anew") from error
    return TrainingIndex(**tensors, patients=tuple(patients)), names
