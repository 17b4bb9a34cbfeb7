"""Where a picture came from: one record, kept inside the file and able to make it again."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from PIL.PngImagePlugin import PngImageFile, PngInfo
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom.uid import UID, generate_uid

from gen.data.dicom_header import parse_dicom, record_text
from gen.data.limits import Limits, boundary, read_bytes, read_start
from gen.data.ome_xml import read_note
from gen.data.pictures import open_picture
from gen.data.stored_tiles import TIFF_STARTS, image_description
from gen.errors import InvalidInput

PNG_KEY = "medphantom"
REPAINTED = "anomaly_map"  # the task whose pictures keep a patient's anatomy
AUGMENTED = "augment"  # some of whose operations do, as `settings` say
_PAINTED_OVER = ("insert", "remove")
Scalar = str | int | float | bool | None
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# A record is read from pictures and documents of any size a service accepts, hence the wide caps.
_FILE_LIMITS = Limits(max_side=9459, max_pixels=9459**2, max_frames=2**16, max_bytes=2**30)


def software() -> str:
    """Name and version of this program."""
    return f"medphantom {_version('medphantom')}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


class Record(BaseModel):
    """Everything needed to make one synthetic picture again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str = Field("text_to_cxr", description="Pipeline that made the picture")
    model: str = Field(min_length=1, max_length=1024, description="Id in the model store")
    weight_sha256: Sha256 = Field(description="Hash of the weights, from the model card")
    prompt: str = Field("", max_length=8192)
    negative_prompt: str = Field("", max_length=8192)
    seed: int = Field(ge=0, lt=2**64, description="Seed of this picture alone")
    scheduler: str = Field(min_length=1, max_length=128)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float
    height: int = Field(ge=1, description="Pixels")
    width: int = Field(ge=1, description="Pixels")
    num_images: int = Field(1, ge=1, description="Pictures asked for together; each has its seed")
    settings: dict[str, Scalar] = Field(default_factory=dict, description="The task's own numbers")
    source_sha256: Sha256 | None = Field(None, description="Hash of the picture it started from")
    software: str = Field(default_factory=software)
    torch_version: str = Field(default_factory=lambda: _version("torch"))
    synthetic: Literal[True] = True

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII only, so equal records are equal bytes."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    @property
    def record_sha256(self) -> str:
        """Hash of the canonical JSON: the identity of what was asked for."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def describe(self) -> str:
        """One line for people."""
        # what was made from a picture may show whoever the picture shows
        operation = self.settings.get("operation") if self.task == AUGMENTED else None
        if operation == "classical":
            return "Another image, transformed: not drawn by a model, and of whom it was before."
        if self.task == REPAINTED or operation in _PAINTED_OVER:
            whose = "Partly synthetic image, painted over a real one"
        elif self.source_sha256:
            whose = "Synthetic image, made from another image"
        else:
            whose = "Synthetic image, not of a patient"
        return (
            f"{whose}. Made by {self.model} (weights "
            f"{self.weight_sha256[:12]}), seed {self.seed}, {self.num_inference_steps} steps of "
            f"{self.scheduler}, guidance {self.guidance_scale:g}."
        )

    def to_png_info(self) -> PngInfo:
        """Text chunks for a PNG: the record for programs, and three lines for people."""
        info = PngInfo()
        info.add_text(PNG_KEY, self.to_json())
        info.add_text("Description", self.describe())
        info.add_text("Software", self.software)
        info.add_text("Synthetic", "YES")
        return info

    def to_row(self, file_name: str) -> dict[str, Any]:
        """A line of metadata.jsonl; `file_name` is the key of Hugging Face's ImageFolder."""
        row = {"file_name": file_name, **self.model_dump(mode="json")}
        return {**row, "record_sha256": self.record_sha256}

    @classmethod
    def from_row(cls, row: dict[str, Any], name: str) -> Self:
        """Read a record or a line of metadata.jsonl, whose own columns are left out.

        Raises InvalidInput if a field is missing or wrong, or the hash does not fit.
        """
        line = isinstance(row, dict) and "file_name" in row
        fields = {key: row[key] for key in row if key in cls.model_fields} if line else row
        try:
            record = cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidInput(f"{name} holds no valid record: {_explain(error)}") from error
        if line and row.get("record_sha256", record.record_sha256) != record.record_sha256:
            raise InvalidInput(
                f"{name} was changed after it was written: record_sha256 does not fit the other "
                "fields; take the record from the picture itself"
            )
        return record

    @classmethod
    def from_file(
        cls, path: str | Path, *, index: int | None = None, file_name: str | None = None
    ) -> Self:
        """Read the record of a PNG, DICOM, OME-TIFF or JSON file, or of a line of JSON lines.

        Args:
            path: the file; its content decides how it is read.
            index: line of a JSON lines file, from 0.
            file_name: or the picture that the line is about; the last such line counts.
        """
        if read_start(path).startswith(TIFF_STARTS):  # these may be larger than memory
            name, xml = Path(path).name, image_description(Path(path))
            return cls.from_row(_loads(read_note(xml, name), name), name)
        name, data = read_bytes(path, _FILE_LIMITS)
        if data.startswith(b"\x89PNG"):
            return cls.from_row(_loads(_png_text(name, data), name), name)
        if data[128:132] == b"DICM":
            return cls.from_row(_loads(record_text(name, parse_dicom(name, data)), name), name)
        return cls.from_row(_choose(_json_rows(name, data), name, index, file_name), name)


def dicom_uid(record: Record, kind: str, *more: str) -> UID:
    """A UID that the same record and kind ("study", "series", ...) always get again.

    `more` tells apart what one record makes several of.
    """
    return generate_uid(entropy_srcs=["medphantom", kind, record.record_sha256, *more])


def _png_text(name: str, data: bytes) -> str:
    picture = open_picture(name, data, _FILE_LIMITS)
    with boundary(name):
        text = picture.text.get(PNG_KEY) if isinstance(picture, PngImageFile) else None
    if text is None:
        raise InvalidInput(
            f"{name} holds no record: the text chunk {PNG_KEY!r} is missing, perhaps lost when the "
            "picture was saved again; use the metadata.jsonl that was written beside it"
        )
    return str(text)


def _json_rows(name: str, data: bytes) -> list[dict[str, Any]]:
    """One dictionary from JSON, or one a line from JSON lines."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} carries no record; name a PNG, DICOM, OME-TIFF or JSON file"
        ) from error
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip().endswith("}"):
        return [_loads(line, f"{name}, line {number}") for number, line in enumerate(lines, 1)]
    return [_loads(text, name)]


def _loads(text: str, name: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} holds no valid JSON; write the record again") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{name} holds a JSON {type(row).__name__}, but a record is an object")
    return row


def _choose(
    rows: list[dict[str, Any]], name: str, index: int | None, file_name: str | None
) -> dict[str, Any]:
    if file_name is not None:
        found = [row for row in rows if row.get("file_name") == file_name]
        if not found:
            raise InvalidInput(f"file_name is {file_name!r}, but no line of {name} is about it")
        return found[-1]
    if index is None and len(rows) > 1:
        raise InvalidInput(f"{name} has {len(rows)} records; choose one by index or file_name")
    if not 0 <= (index or 0) < len(rows):
        raise InvalidInput(f"index is {index}, but {name} has records 0 to {len(rows) - 1}")
    return rows[index or 0]


def _explain(error: ValidationError) -> str:
    """Fields and rules, never the values: they may be somebody's text."""
    parts = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return "; ".join(parts)
