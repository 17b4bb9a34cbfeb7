"""An encoder by its id, folder or file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder, id_of
from gen.encoders.state_dicts import from_state_dict, state_dict_file
from gen.encoders.timm_vision import from_timm
from gen.encoders.transformers_vision import from_transformers
from gen.errors import InvalidInput
from gen.models.cxr_classifier import CXRClassifier
from gen.models.cxr_encoder import CXREncoder
from gen.store.catalogue import ResolvedModel, resolve
from gen.store.guard import VISION
from gen.store.loading import load_components


def load_encoder(model_id: str | Path, device: str | None = None) -> Encoder:
    """An encoder by its id, folder or file.

    Args:
        model_id: one of ours; a transformers vision model (RAD-DINO, DINOv2, ViT); a timm vision
            transformer (UNI) as a folder of config.json and model.safetensors; or the safetensors
            state dict, alone in a folder or not, of a network of
            `gen.encoders.state_dicts.ARCHITECTURES`.
        device: where to put it; None is a GPU if there is one.

    Raises:
        InvalidInput: the model is no encoder, or its weights are not at hand.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = state_dict_file(model_id)
    if weights is not None:
        return from_state_dict(weights, device)
    model = resolve(model_id)
    network: Any = load_components(model_id).get("model")
    if isinstance(network, CXREncoder):
        return _from_conv_encoder(model, network.to(device), device)
    if type(network).__name__ == "VisionTransformer":
        return from_timm(model, network.to(device), device)
    if type(network).__name__ not in VISION:
        raise InvalidInput(
            f"encoder is {str(model_id)!r}, which is no image encoder; name one, such as"
            " cxr-encoder-mini or the folder of RAD-DINO"
        )
    return from_transformers(model, network.to(device).eval(), device)


def probabilities_of(
    classifier: CXRClassifier, model: ResolvedModel, device: str | None = None
) -> Encoder:
    """A classifier as an encoder: its probabilities are cached as features are."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    side = classifier.config.sample_size
    classifier.to(device)
    return Encoder(
        id_of(model), side, side, lambda images: classifier.probabilities(images * 2 - 1), device
    )


def _from_conv_encoder(model: ResolvedModel, network: CXREncoder, device: str) -> Encoder:
    """Its features are the mean of its patches', before both get unit length."""
    side, channels = network.config.sample_size, network.config.in_channels

    def encode(images: Tensor) -> Tensor:
        features: Tensor = network(images * 2 - 1)
        return features

    def encode_patches(images: Tensor) -> Tensor:
        grid = F.silu(network.norm(network.trunk(images * 2 - 1)))
        features: Tensor = network.head(grid.movedim(1, -1))
        return features

    def encode_finely(images: Tensor) -> Tensor:
        return network.fine_grid(images * 2 - 1).movedim(1, -1)

    return Encoder(
        id_of(model), side, side, encode, device, channels, encode_patches, encode_finely
    )
