"""What the runner must know of a task: how a row becomes its spec, and its result a sample."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gen.augmentation.operations import RULES, check_operation
from gen.data.limits import Limits, read_bytes
from gen.data.manifest import inside
from gen.errors import InvalidInput
from jobs.runner.items import Item
from jobs.runner.null import Null
from jobs.runner.spec import JobSpec, said
from jobs.sink import BUNDLE, SUFFIXES
from jobs.tasks import TASKS, Task
from jobs.tasks.task import Made

UPLOAD = Limits(max_bytes=64 * 2**20)  # the task's own limits are tighter
Files = dict[str, bytes]  # what an item is made from, by its field: image, mask
Fields = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of work.

    Args:
        task: that does it.
        needs: params of a job -> of these, a manifest must have one; without any, it may have none.
        operation: of the samples, unless the task's record tells.
        spec_of: an item, with the files it is made from, as fields of the task's spec; it is given
            those that the job and the row say, too.
        names: of the files of a result that is a bundle, by what they are called in a sample.
        chest: its labels are findings of chest X-rays.
        at_once: items of a shard that are under way together; None fills the engine.
    """

    task: Task
    needs: Callable[[Fields], tuple[str, ...]]
    operation: str
    spec_of: Callable[[Item, Files, Fields], Fields]
    names: dict[str, str]
    chest: bool = True
    at_once: int | None = None

    def check(self, spec: JobSpec, item: Item, files: Files) -> Any:
        """The task's spec of one item.

        Raises:
            InvalidInput: the row lacks something, or breaks a rule; no value is quoted.
        """
        seed = item.seed(spec.seed, 0)
        given = {**spec.params, **item.fields}
        fields = {**given, **self.spec_of(item, files, given)}
        try:
            return self.task.check({**fields, "model": spec.model, "seed": seed})
        except ValidationError as error:
            raise InvalidInput(said(error)) from None

    def check_params(self, spec: JobSpec, item: Item) -> None:
        """Raise InvalidInput if params are wrong whatever the rows say."""
        known = self.task.spec_type.model_fields
        reserved = {"model", "seed", "n", "previews"} & spec.params.keys()
        unknown = spec.params.keys() - known.keys()
        if reserved or unknown:
            name = sorted(reserved | unknown)[0]
            raise InvalidInput(
                f"params.{name} is given, but params are fields of {self.task.name}, and model,"
                f" seed and n are the job's own; use {', '.join(sorted(known))}"
            )
        seed = item.seed(spec.seed, 0)
        fields = {**self.task.warm_up(), **spec.params, "model": spec.model, "seed": seed}
        try:
            self.task.check_model(self.task.check(fields))
        except ValidationError as error:
            wrong = {str(each["loc"][0]) for each in error.errors() if each["loc"]}
            if wrong & spec.params.keys():
                raise InvalidInput(f"params.{said(error)}") from None

    def files_of(self, made: Made) -> Files:
        """The files of a sample, by their suffixes."""
        from gen.data.bundle import unpack

        if made.media_type != BUNDLE:
            suffix = SUFFIXES[made.media_type]
            return {suffix.removeprefix("ome."): made.data}
        files = unpack(made.data)
        return {self.names.get(n, n): data for n, data in files.items() if n != "record.json"}


def kind_of(name: str) -> Kind:
    """The kind of work that a job's task names. Raises InvalidInput if it is not there."""
    if name not in KINDS:
        raise InvalidInput(f"task is {name!r}, but must be one of {', '.join(KINDS)}")
    return KINDS[name]


def read_files(item: Item, root: Path) -> Files:
    """What an item is made from. Raises InvalidInput if a file is missing, or leaves the root."""
    named = {"image": item.image, "mask": item.mask}
    return {
        name: read_bytes(inside(root, file), UPLOAD)[1]
        for name, file in named.items()
        if file is not None
    }


def _base64(files: Files, name: str) -> str:
    if name not in files:
        raise InvalidInput(f"the row names no {name}, but the task is about one; fill it in")
    return base64.b64encode(files[name]).decode()


def _prompted(item: Item, files: Files, given: Fields) -> Fields:
    if item.prompt is None and "prompt" not in item.fields:
        raise InvalidInput("the row has neither a prompt nor labels; fill one in")
    return {} if item.prompt is None else {"prompt": item.prompt}


def _augmented(item: Item, files: Files, given: Fields) -> Fields:
    """What the operation takes of what the row has."""
    rules = RULES[check_operation(str(given.get("operation")))]
    fields: Fields = {"images": [_base64(files, "image")]} if rules.picture else {}
    if "mask" in files and rules.mask is not None:
        fields["masks"] = [_base64(files, "mask")]
    if item.prompt is not None and rules.prompt and not {"prompt", "labels"} & given.keys():
        fields["prompt"] = item.prompt
    return fields


def _large(item: Item, files: Files, given: Fields) -> Fields:
    if item.prompt is not None:
        return {"text": item.prompt}
    return {"like": _base64(files, "image")} if files else {}


def _mapped(item: Item, files: Files, given: Fields) -> Fields:
    return {"images": [_base64(files, "image")]}


def _of_words(params: Fields) -> tuple[str, ...]:
    return () if "prompt" in params else ("prompt", "labels")


def _of_augment(params: Fields) -> tuple[str, ...]:
    if "operation" not in params:  # each row says its own
        return ("image", "prompt", "labels")
    return _of_words(params) if params["operation"] == "synthesise" else ("image",)


def _of_large(params: Fields) -> tuple[str, ...]:
    return () if {"text", "like", "variation"} & params.keys() else ("prompt", "image")


KINDS: dict[str, Kind] = {
    "generate": Kind(TASKS["text-to-cxr"], _of_words, "synthesise", _prompted, {}),
    "augment": Kind(TASKS["augment"], _of_augment, "vary", _augmented, {"image.png": "png"}),
    "large": Kind(
        TASKS["large-images"], _of_large, "synthesise", _large, {}, chest=False, at_once=1
    ),
    "anomaly": Kind(
        TASKS["anomaly-maps"], lambda _: ("image",), "map", _mapped, {"healthy.png": "png"}
    ),
    "null": Kind(Null(), _of_words, "synthesise", _prompted, {}),
}
