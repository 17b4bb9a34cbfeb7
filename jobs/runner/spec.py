"""What a data set job is: one task over the rows of a manifest, made into a folder of shards."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gen.data.atomic import atomic_file
from gen.errors import Conflict, InvalidInput
from jobs.device import Precision

JOB = "job.json"
Format = Literal[
    "auto", "csv", "parquet", "jsonl", "imagefolder", "monai", "dicom", "pictures"
]  # fmt: skip
TaskName = Literal["generate", "augment", "large", "anomaly", "null"]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class ManifestSpec(BaseModel):
    """Where the rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="A table, a datalist, or a folder of pictures")
    format: Format = Field("auto", description="auto tells by what is there")
    split: str | None = Field(None, description="Only the rows of this split; null is all")
    columns: dict[Name, Name] = Field(
        default_factory=dict,
        description="What a column holds, where its name does not say so: {field: column}. A field "
        "is id, image, mask, prompt, labels, sex, age, view, patient, split, n, seed, params, or "
        "one of the task's spec",
    )
    root: str | None = Field(
        None, description="Folder of the pictures; null is the manifest's own. None may leave it"
    )


class JobFields(BaseModel):
    """What a data set job says wherever it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: TaskName = Field(description="What is made of each row")
    manifest: ManifestSpec = Field(description="Where the rows come from")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Fields of the task's spec, the same for all rows"
    )
    n: int = Field(1, ge=1, le=100_000, description="Results of each row")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the job; with a row's id it decides all")
    mixed_precision: Precision = Field(
        Precision.NO, description="bf16 is twice as fast on CPUs with AMX; images differ a little"
    )
    shard_size: int = Field(100, ge=1, le=100_000, description="Results of a shard, the last fewer")
    gates: dict[str, Any] | None = Field(None, description="Quality gates; null judges nothing")
    max_attempts: int = Field(
        4, ge=1, le=100, description="So often is made again what a gate refuses"
    )


class JobSpec(JobFields):
    """A data set job. With the same spec and manifest, the same files come out."""

    model: str = Field("cxr-mini", min_length=1, max_length=1000, description="Id or folder")
    out: str = Field(min_length=1, description="Folder of the results; the same one resumes")

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the results; the place of the folder does not."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()

    def deciding(self) -> dict[str, Any]:
        """As JSON, without `out`."""
        return self.model_dump(mode="json", exclude={"out"})


def read_spec(path: str | Path, out: str | Path | None = None) -> JobSpec:
    """A spec from a JSON or YAML file.

    Args:
        path: the file.
        out: folder of the results, in place of the one in the file.

    Raises:
        InvalidInput: it cannot be read, or a field of it is wrong; the message names the field.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be opened: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is neither JSON nor YAML in UTF-8; mend it") from error
    if not isinstance(content, Mapping):
        raise InvalidInput(f"{path} must hold names and values, such as task, model and manifest")
    return checked({**content, **({} if out is None else {"out": str(out)})})


def checked(fields: Mapping[str, Any]) -> JobSpec:
    """A spec from JSON values. Raises InvalidInput that names the first wrong field."""
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput(said(error)) from error


def said(error: ValidationError) -> str:
    """The first thing that is wrong, without the value: it may be a picture or a patient's."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the spec'}: {first['msg']}"


class Job(BaseModel):
    """What a folder of results is: the spec, and the items that it was frozen into.

    Args:
        root: absolute folder that pictures are named from.
        items_sha256: of the frozen items, in their order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: JobSpec
    spec_sha256: str
    root: str
    num_rows: int
    num_items: int
    num_shards: int
    items_sha256: str

    def write(self, out: Path) -> None:
        """Keep it in OUT: from now on, the folder is of this job."""
        with atomic_file(out / JOB, overwrite=True) as stream:
            stream.write((self.model_dump_json(indent=1) + "\n").encode())


def read_job(out: Path) -> Job | None:
    """The job of a folder; None if it has none yet.

    Raises:
        InvalidInput: the file was damaged, or written by another version.
    """
    try:
        return Job.model_validate_json((out / JOB).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{out / JOB} is damaged; name another folder, or remove it") from error


def refuse_other(job: Job, spec: JobSpec, out: Path) -> None:
    """Raise Conflict that names what differs, unless the folder's job is this one."""
    there, now = dict(_leaves(job.spec.deciding())), dict(_leaves(spec.deciding()))
    differing = [
        f"{name} is {_short(there.get(name))} there and {_short(now.get(name))} here"
        for name in {**there, **now}
        if there.get(name) != now.get(name)
    ]
    if differing:
        raise Conflict(
            f"{out} holds the results of another job: {'; '.join(differing)}. Name another folder,"
            " or go on with the spec in its job.json"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
