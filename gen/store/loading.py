"""Load a model's components, each by a class that we chose, from files that were checked before.

Names in a model's files are only compared with a list; what is imported and called is written here.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from gen.errors import ModelRefused
from gen.store.adapters import apply_lora
from gen.store.catalogue import resolve
from gen.store.guard import TOKENIZERS, Part, check_folder
from gen.store.single_file import load_checkpoint
from gen.store.timm_folder import load_timm

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_components(
    model_id: str | Path,
    *,
    torch_dtype: torch.dtype | None = None,
    allow_download: bool = False,
    lora: str | Path | None = None,
) -> dict[str, Any]:
    """Load every component of a model, networks in evaluation mode on the CPU.

    Args:
        model_id: see `gen.store.catalogue.resolve`.
        torch_dtype: of the networks; None is float32, whatever the files hold.
        allow_download: fetch hub models that are not in the local cache.
        lora: an adapter to add: folder, safetensors file or hub id.

    Returns:
        Component by name (unet, vae, text_encoder, tokenizer, scheduler), or {"model": network}
        for the folder of one network.

    Raises:
        ModelRefused: the model is unknown, unsafe, incomplete or inconsistent.
    """
    model = resolve(model_id, allow_download)
    dtype = torch_dtype or torch.float32
    if model.kind == "adapter":
        raise ModelRefused(
            f"{model.id!r} is a LoRA adapter; load its base model with lora={model.id!r}"
        )
    if model.kind == "checkpoint":
        components = load_checkpoint(model.path, dtype)
    else:
        parts = check_folder(model.path, model.card)
        components = {part.name: _load(part, dtype) for part in parts}
    check_conditioning(components)
    if lora is not None:
        apply_lora(components, lora, allow_download)
    return components


def _load(part: Part, dtype: torch.dtype) -> Any:
    """Load one checked component."""
    if part.library == "timm":
        return load_timm(part.folder, dtype)
    cls = _class_of(part)
    if not part.has_weights:
        return _load_plain(cls, part)
    try:
        with _without_bars():
            network, info = cls.from_pretrained(
                str(part.folder),
                local_files_only=True,
                use_safetensors=True,
                variant=part.variant,
                dtype=dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelRefused(f"{part.folder} cannot be loaded: {error}") from error
    # both libraries fill what is missing with random numbers and only log it
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelRefused(
            f"{part.folder}: {len(lacking)} tensors do not match config.json, the first is "
            f"{lacking[0]}; fetch or save the model again"
        )
    return network.eval()


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep both libraries from drawing on stderr, which belongs to the program that loads."""
    loggings = (diffusers.utils.logging, transformers.utils.logging)
    active = [each for each in loggings if each.is_progress_bar_enabled()]
    for logging in active:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in active:
            logging.enable_progress_bar()


def _load_plain(cls: Any, part: Part) -> Any:
    """Load a tokenizer or a scheduler."""
    try:
        return cls.from_pretrained(str(part.folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelRefused(f"{part.folder} cannot be loaded: {error}") from error


def _class_of(part: Part) -> Any:
    """The class of a component: the guard has compared its name with the list."""
    if part.library in LIBRARIES:
        name = part.class_name
        return getattr(
            LIBRARIES[part.library], name.removesuffix("Fast") if name in TOKENIZERS else name
        )
    cls = getattr(importlib.import_module(part.library), part.class_name)
    if not issubclass(cls, diffusers.ModelMixin):
        raise ModelRefused(f"{part.folder}: {part.library}.{part.class_name} is not a network")
    return cls


def check_conditioning(components: dict[str, Any]) -> None:
    """Refuse a text encoder whose width the U-Net that it conditions does not attend to.

    Elsewhere such a pair yields a U-Net with silently re-initialised attention.
    """
    name = "prior" if "prior" in components else "unet"
    if not {"text_encoder", name} <= components.keys():
        return
    width = components["text_encoder"].config.hidden_size
    config = components[name].config
    expected = getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim
    widths = set(expected) if isinstance(expected, list | tuple) else {expected}
    if widths != {width}:
        raise ModelRefused(
            f"the text encoder's hidden size is {width}, but the {name}'s cross_attention_dim is "
            f"{expected}; use the text encoder that the {name} was trained with, or train a {name}"
            " for it"
        )
