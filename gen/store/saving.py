"""Write components as a model folder in diffusers layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers

MAX_SHARD = "15MB"  # what a repository's large-file guard lets through


def save_components(
    folder: Path,
    components: Mapping[str, Any],
    pipeline_class: str,
    config: Mapping[str, str | float] | None = None,
) -> None:
    """Save every component under its name, and the index that says which class each is.

    `config` are settings of the pipeline itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {
        "_class_name": pipeline_class,
        "_diffusers_version": diffusers.__version__,
        **(config or {}),
    }
    for name, component in components.items():
        sharded = {"max_shard_size": MAX_SHARD} if hasattr(component, "parameters") else {}
        component.save_pretrained(folder / name, **sharded)
        module = type(component).__module__
        library = module if module.startswith("gen.") else module.split(".")[0]
        index[name] = [library, type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
