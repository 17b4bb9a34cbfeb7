"""Which models a task can use, told from their cards."""

from collections.abc import Sequence
from functools import lru_cache

from gen.errors import InvalidInput, ModelRefused
from gen.store.catalogue import resolve
from gen.store.weight_files import read_object
from jobs.tasks.task import Task


@lru_cache(maxsize=64)
def task_of(model: str) -> str | None:
    """The `task` of a model's card, or what its folder says; None if only loading it can tell."""
    try:
        resolved = resolve(model)
        if resolved.card is not None:
            return resolved.card.task
        if resolved.kind != "pipeline":
            return None
        index = read_object(resolved.path / "model_index.json")
    except ModelRefused:
        return None
    large = index.get("_class_name") == "LargeImagePipeline"
    return "embedding-to-image" if large else "text-to-image"


def fits(task: Task, model: str) -> bool:
    """Whether a model may be of a task."""
    return task_of(model) in (task.model_task, None)


def choose_model(task: Task, models: Sequence[str], wanted: str | None) -> str:
    """The model of a request: the one it names, else the first of those served that fits.

    Raises:
        InvalidInput: the one it names is not served or of another task, or none fits.
    """
    fitting = [model for model in models if fits(task, model)]
    if not fitting:
        raise InvalidInput(
            f"model: none that is served makes {task.name}; start the service with one whose task"
            f" is {task.model_task}, as `medphantom models list` shows"
        )
    if wanted is not None and wanted not in fitting:
        raise InvalidInput(f"model must be one of {', '.join(fitting)}")
    return wanted or fitting[0]
