"""LoRA adapters: PEFT folders, diffusers files and Kohya files, from safetensors only."""

import json
import re
from pathlib import Path
from typing import Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors.torch import load_file
from torch import Tensor

from gen.errors import ModelRefused
from gen.store.catalogue import ResolvedModel, adapter_file, resolve
from gen.store.weight_files import check_safetensors, read_object

# LoraConfig takes more, some of it names code or files; these say all that the weights mean
CONFIG_KEYS = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"})
TARGETS = ("unet", "text_encoder")
PEFT_PREFIX = "base_model.model."


def apply_lora(components: dict[str, Any], lora: str | Path, allow_download: bool = False) -> None:
    """Add an adapter to the unet and the text encoder of `components`, in place.

    Raises:
        ModelRefused: `lora` is no adapter, is unsafe, or fits neither network.
    """
    adapter = resolve(lora, allow_download)
    if adapter.kind != "adapter":
        raise ModelRefused(f"lora {adapter.id!r} is a {adapter.kind}, not a LoRA adapter")
    adapter.check()
    tensors, settings = _read(adapter)
    tensors, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(tensors)
    prefixes = [name for name in TARGETS if any(key.startswith(f"{name}.") for key in tensors)]
    if not prefixes:
        raise ModelRefused(f"lora {adapter.id!r} holds no layer of {' or '.join(TARGETS)}")
    for name in prefixes:
        if name not in components:
            raise ModelRefused(f"lora {adapter.id!r} adapts the {name}, which the model lacks")
        _apply(name, components[name], tensors, alphas, settings, adapter)


def _apply(
    name: str,
    network: Any,
    tensors: dict[str, Tensor],
    alphas: dict[str, float] | None,
    settings: dict[str, Any],
    adapter: ResolvedModel,
) -> None:
    dtype = next(network.parameters()).dtype
    load = getattr(StableDiffusionLoraLoaderMixin, f"load_lora_into_{name}")
    own = {key: value for key, value in settings.items() if key.startswith(f"{name}.")}
    if own:
        own[f"{name}.target_modules"] = _modules(tensors, name)
    try:
        load(tensors, network_alphas=alphas, **{name: network}, metadata=own or None)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ModelRefused(
            f"lora {adapter.id!r} does not fit the {name}: {error}; use the base model it was "
            f"trained on"
        ) from error
    network.to(dtype)


def _modules(tensors: dict[str, Tensor], name: str) -> list[str]:
    """The layers that have LoRA weights, named without the wrapper that older CLIPs had."""
    layers = {key.split(".lora_")[0] for key in tensors if key.startswith(f"{name}.")}
    return sorted(layer.removeprefix(f"{name}.").removeprefix("text_model.") for layer in layers)


def _read(adapter: ResolvedModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors under their network's name ("unet."), and the settings under the same prefix."""
    path = adapter_file(adapter.path) if adapter.path.is_dir() else adapter.path
    tensors = load_file(path)
    config = path.parent / "adapter_config.json"
    if any(key.startswith(PEFT_PREFIX) for key in tensors) and config.is_file():
        target = _peft_target(tensors)
        stripped = {f"{target}.{key.removeprefix(PEFT_PREFIX)}": t for key, t in tensors.items()}
        return stripped, _settings(
            {f"{target}.{k}": v for k, v in read_object(config).items()}, path
        )
    text = check_safetensors(path).get("__metadata__", {}).get("lora_adapter_metadata", "{}")
    try:
        settings = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{path}: lora_adapter_metadata is not a JSON object") from error
    return tensors, _settings(settings, path)


def _peft_target(tensors: dict[str, Tensor]) -> str:
    """PEFT does not name the network; a U-Net's layers lie in its blocks, CLIP's in its encoder."""
    blocks = re.compile(r"base_model\.model\.(down_blocks|mid_block|up_blocks|conv_in|time_)")
    return "unet" if any(blocks.match(key) for key in tensors) else "text_encoder"


def _settings(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Keep what says how the weights are scaled."""
    kept = {key: value for key, value in values.items() if key.rpartition(".")[2] in CONFIG_KEYS}
    for key, value in kept.items():
        # PEFT matches layers by these as regular expressions: plain names cannot hang it
        patterns = value if isinstance(value, dict) else {}
        if not all(re.fullmatch(r"\^?[\w.]+\$?", pattern) for pattern in patterns):
            raise ModelRefused(f"{path}: {key} holds a pattern that is not a layer's name")
    return kept
