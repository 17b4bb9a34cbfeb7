"""Vision transformers of the timm library: which a model may name, and with what arguments.

A config.json of timm names an architecture and the arguments it is built with. Both are compared
with the lists below; timm itself reads nothing of the folder. Torch is imported late: checks run
where there is none.
"""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import ModelRefused
from gen.store.weight_files import read_object, weight_files

if TYPE_CHECKING:
    import torch

ARCHITECTURES = frozenset(
    f"vit_{name}"
    for name in (
        *("tiny_patch16_224", "small_patch8_224", "small_patch16_224", "small_patch32_224"),
        *("base_patch8_224", "base_patch16_224", "base_patch32_224", "base_patch16_384"),
        *("large_patch14_224", "large_patch16_224", "large_patch32_224", "large_patch16_384"),
        *("huge_patch14_224", "giant_patch14_224", "gigantic_patch14_224"),
        *(f"{size}_patch14_dinov2" for size in ("small", "base", "large", "giant")),
        *(f"{size}_patch14_reg4_dinov2" for size in ("small", "base", "large", "giant")),
    )
)
_SWITCH = (True, False)
ARGUMENTS: Mapping[str, Container[Any]] = {
    "img_size": range(1, 4097),
    "patch_size": range(1, 257),
    "in_chans": (1, 3),
    "embed_dim": range(1, 8193),
    "depth": range(1, 101),
    "num_heads": range(1, 129),
    "reg_tokens": range(65),
    "class_token": _SWITCH,
    "no_embed_class": _SWITCH,
    "dynamic_img_size": _SWITCH,
    "pre_norm": _SWITCH,
    "final_norm": _SWITCH,
    "fc_norm": _SWITCH,
    "qkv_bias": _SWITCH,
    "qk_norm": _SWITCH,
    "global_pool": ("token", "avg"),
    "act_layer": ("gelu", "silu"),
    "mlp_layer": ("SwiGLUPacked",),
}
_NUMBERS = {"mlp_ratio": (0.01, 16), "init_values": (0, 1)}  # least and most
# of the classifier and of training
_IGNORED = frozenset({"num_classes", "drop_rate", "drop_path_rate"})


def check_timm(folder: Path) -> dict[str, Any]:
    """The arguments that a folder's network is built with.

    Raises:
        ModelRefused: the architecture, an argument, or its value is not on the list.
    """
    path = folder / "config.json"
    config = read_object(path)
    architecture = config.get("architecture")
    if not (isinstance(architecture, str) and architecture in ARCHITECTURES):
        raise ModelRefused(
            f"{path}: the architecture {architecture!r} is not on the list; known are"
            f" {', '.join(sorted(ARCHITECTURES))}"
        )
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ModelRefused(f"{path}: model_args is {arguments!r}, but must be an object")
    chosen = {
        name: _one_side(value)
        for name, value in arguments.items()
        if name not in _IGNORED and value is not None
    }
    for name, value in chosen.items():
        _check_argument(name, value, path)
    return chosen


def _one_side(value: Any) -> Any:
    """224 of [224, 224], as timm may write a square."""
    square = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
    return value[0] if square else value


def _check_argument(name: str, value: Any, path: Path) -> None:
    if name in ARGUMENTS:
        allowed = value in ARGUMENTS[name]
        rule = f"it must be in {ARGUMENTS[name]}"
    elif name in _NUMBERS:
        least, most = _NUMBERS[name]
        allowed = isinstance(value, int | float) and least <= value <= most
        rule = f"it must be a number from {least} to {most}"
    else:
        allowed = False
        rule = f"read are {', '.join(sorted({*ARGUMENTS, *_NUMBERS}))}"
    if not allowed:
        raise ModelRefused(f"{path}: model_args has {name} = {value!r}, but {rule}")


def load_timm(folder: Path, dtype: "torch.dtype") -> Any:
    """The network of a checked folder, without its classifier, in evaluation mode on the CPU.

    Raises:
        ModelRefused: the weights do not fit, or timm is not installed.
    """
    import torch
    from safetensors.torch import load_file

    try:
        from timm import create_model
        from timm.layers import SwiGLUPacked
    except ImportError as error:
        raise ModelRefused(
            f"{folder} needs {error.name}, which is not installed; install medphantom[eval]"
        ) from error
    arguments = check_timm(folder)
    if "mlp_layer" in arguments:
        arguments["mlp_layer"] = SwiGLUPacked
    tensors = {
        name: tensor.to(dtype)
        for path in weight_files(folder, "model")[1]
        for name, tensor in load_file(path).items()
        if not name.startswith("head.")
    }
    architecture = read_object(folder / "config.json")["architecture"]
    try:
        with torch.device("meta"):  # the file, not the config, says how much memory it takes
            network = create_model(architecture, num_classes=0, **arguments)
        network.load_state_dict(tensors, assign=True)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())[:300]  # of some hundred names
        raise ModelRefused(
            f"{folder} cannot be loaded: {first}; fetch or save the model again"
        ) from error
    return network.eval()
