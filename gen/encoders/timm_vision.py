"""Vision transformers of the timm library (UNI, H-optimus, the ViTs of HIPT) as encoders."""

from math import isqrt
from typing import Any

from torch import Tensor

from gen.encoders.encoder import Encoder, id_of
from gen.encoders.normalisation import RGB_MEAN, RGB_STD, normalisation
from gen.errors import ModelRefused
from gen.store.catalogue import ResolvedModel
from gen.store.weight_files import read_object


def from_timm(model: ResolvedModel, network: Any, device: str) -> Encoder:
    """Prepared as pretrained_cfg of its config.json says; the features before the classifier.

    What that leaves out is as DINO has it, of the whole picture: the mean and deviation of
    ImageNet, and no crop.

    Raises:
        ModelRefused: pretrained_cfg makes no sense.
    """
    path = model.path / "config.json"
    config = read_object(path).get("pretrained_cfg") or {}
    if not isinstance(config, dict):
        raise ModelRefused(f"{path} has the pretrained_cfg {config!r}, which must be an object")
    mean, std = config.get("mean", RGB_MEAN), config.get("std", RGB_STD)
    normalise = normalisation(mean, std, network.in_chans, device, path)
    side = int(network.patch_embed.img_size[0])
    kept = config.get("crop_pct", 1.0)
    if not (isinstance(kept, int | float) and 0.1 <= kept <= 1):
        raise ModelRefused(f"{path} has the crop_pct {kept!r}, but 0.1 to 1 of a side is read")

    def encode(images: Tensor) -> Tensor:
        features: Tensor = network.forward_head(
            network.forward_features(normalise(images)), pre_logits=True
        )
        return features

    def encode_patches(images: Tensor) -> Tensor:
        patches: Tensor = network.forward_features(normalise(images))
        patches = patches[:, network.num_prefix_tokens :]
        rows = isqrt(patches.shape[1])
        return patches.unflatten(1, (rows, rows))

    return Encoder(
        id_of(model), side, int(side / kept), encode, device, network.in_chans, encode_patches
    )
