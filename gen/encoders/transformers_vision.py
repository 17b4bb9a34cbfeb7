"""Vision models of the transformers library (RAD-DINO, DINOv2, ViT) as encoders."""

from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen.encoders.encoder import Encoder, id_of
from gen.encoders.normalisation import RGB_MEAN, RGB_STD, normalisation
from gen.errors import ModelRefused
from gen.store.catalogue import ResolvedModel
from gen.store.weight_files import read_object

PROCESSOR = "preprocessor_config.json"


def from_transformers(model: ResolvedModel, network: Any, device: str) -> Encoder:
    """Normalised as its preprocessor_config.json says; the pooled output or the class token.

    Raises:
        ModelRefused: that file makes no sense, or the network sees neither grey nor RGB.
    """
    path = model.path / PROCESSOR
    config = read_object(path) if path.is_file() else {}
    channels = network.config.num_channels
    if channels not in (1, 3):
        raise ModelRefused(f"{model.path} has {channels} input channels, but 1 or 3 are read")
    side, shorter = _sides(config, int(network.config.image_size), path)
    mean, std = config.get("image_mean", RGB_MEAN), config.get("image_std", RGB_STD)
    if not config.get("do_normalize", True):
        mean, std = [0.0] * channels, [1.0] * channels
    normalise = normalisation(mean, std, channels, device, path)
    if hasattr(network.config, "mask_ratio"):
        network.config.mask_ratio = 0.0  # a masked autoencoder would hide most of each image

    def encode(images: Tensor) -> Tensor:
        output = network(normalise(images))
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
        return features

    def encode_patches(images: Tensor) -> Tensor:
        return _patch_grid(network(normalise(images)), network.config)

    return Encoder(id_of(model), side, shorter, encode, device, channels, encode_patches)


def _patch_grid(output: Any, config: Any) -> Tensor:
    """(N, h, w, D) of the last layer, without class and register tokens."""
    patches: Tensor = output.last_hidden_state[:, 1 + getattr(config, "num_register_tokens", 0) :]
    places = getattr(output, "ids_restore", None)
    if places is not None:  # a masked autoencoder shuffles patches even where it hides none
        patches = torch.take_along_dim(patches, places[..., None], dim=1)
    rows = isqrt(patches.shape[1])
    return patches.unflatten(1, (rows, rows))


def _sides(config: dict[str, Any], image_size: int, path: Path) -> tuple[int, int]:
    """The square the network sees, and the shorter side of what it is cut from."""
    shorter = _length(config.get("size"), path) or image_size
    cropped = config.get("do_center_crop", "crop_size" in config)
    side = (_length(config.get("crop_size"), path) if cropped else None) or shorter
    return side, max(side, shorter)


def _length(size: Any, path: Path) -> int | None:
    """A side as transformers write it: 224, {"shortest_edge": 224} or {"height", "width"}."""
    sides = set(size.values()) if isinstance(size, dict) else {size}
    (side,) = sides if len(sides) == 1 else (0,)
    if side is not None and not (isinstance(side, int) and 1 <= side <= 4096):
        raise ModelRefused(f"{path} asks for the size {size}, but one side of 1 to 4096 is read")
    return side
