"""The model card: what a model is, what it was trained on, and the hash of every file it loads."""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gen.errors import ModelRefused

CARD_NAME = "card.json"
# what loading may read; a picture or a README beside the model is not part of it
HASHED_SUFFIXES = frozenset({".safetensors", ".json", ".txt"})

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TrainingData(BaseModel):
    """One data set a model was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    licence: str
    images: int = Field(ge=0, description="Images used")


class Card(BaseModel):
    """What a user must know of a model before using its images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Literal[
        "text-to-image", "class-to-image", "embedding-to-image", "encoder", "classifier", "prior"
    ]
    modality: str
    image_size: int = Field(ge=1, description="Side of the square training images in pixels")
    pixel_range: tuple[float, float] = Field(description="Lowest and highest pixel of the decoder")
    channels: int = Field(ge=1)
    licence: str
    training_data: tuple[TrainingData, ...]
    recipe: str = Field(description="Name or text of the configuration that made the weights")
    device: str = Field(description="What the weights were trained on")
    images_seen: int = Field(ge=0)
    evaluation: dict[str, float | str | dict[str, Any]]
    calibration: dict[str, Any] = Field(default_factory=dict)
    limits: tuple[str, ...]
    not_for_diagnosis: Literal[True] = True
    weights: dict[str, Sha256] = Field(description="Path inside the folder -> sha256 of the file")

    @field_validator("weights")
    @classmethod
    def _paths_stay_inside(cls, weights: dict[str, str]) -> dict[str, str]:
        for path in weights:
            if PurePosixPath(path).is_absolute() or ".." in path.split("/") or "\\" in path:
                raise ValueError(f"the path {path!r} leaves the model's folder")
        return weights

    @property
    def weight_sha256(self) -> str:
        """One hash over all files: it changes when any file changes or is renamed."""
        return combined_sha256(self.weights)


def combined_sha256(weights: dict[str, str]) -> str:
    """One hash over `path -> sha256`, independent of the order."""
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(weights.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """Hash every file that loading may read: path inside the folder -> sha256."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in loaded_files(folder)}


def loaded_files(folder: Path) -> list[Path]:
    """Files that loading may read, sorted; the card and hidden folders are not among them."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in HASHED_SUFFIXES
        and path.is_file()
        and path != folder / CARD_NAME
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def write_card(folder: Path, **fields: Any) -> Card:
    """Hash the files of `folder` and write its card.

    Args:
        folder: a saved model.
        fields: every field of `Card` except `weights`.
    """
    card = Card(**fields, weights=hash_folder(folder))
    part = folder / f"{CARD_NAME}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(card.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CARD_NAME)
    return card


def read_card(folder: Path) -> Card | None:
    """Read the card of a model folder; None where there is none.

    Raises:
        ModelRefused: the card is not valid.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        return None
    try:
        return Card.model_validate(json.loads(path.read_bytes()))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ModelRefused(
            f"{path} is not a valid model card: {error}; write it with gen.store.card.write_card"
        ) from error
