"""Encoders of images: each sees the pixels it was trained on, after one resize of the original.

Elsewhere images are first made 299 pixels a side and then the encoder's size, or squashed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gen.data.transforms import fit
from gen.errors import InvalidInput, ModelRefused
from gen.models.cxr_classifier import CXRClassifier
from gen.models.cxr_encoder import CXREncoder
from gen.store.card import file_sha256
from gen.store.catalogue import ResolvedModel, resolve
from gen.store.guard import VISION
from gen.store.loading import load_components
from gen.store.weight_files import check_safetensors, read_object

PROCESSOR = "preprocessor_config.json"
# What transformers' image encoders of the DINO family were trained with.
_RGB_MEAN, _RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Encoder:
    """An image encoder. Called on whole pictures (N, 1, S, S) in [-1, 1], it answers (N, D).

    Args:
        id: name and hash of its files: where ids are equal, features compare.
        side: of the square that the network sees, in pixels.
        shorter_side: what a picture's shorter side is resized to before the square is cut out.
        network: prepared pictures (N, 1, side, side) in [0, 1] on `device` -> features (N, D).
        device: where the network is.
    """

    id: str
    side: int
    shorter_side: int
    network: Callable[[Tensor], Tensor]
    device: str

    def prepare(
        self, pixels: NDArray[np.floating], orig_size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """The square (side, side) of an original (H, W) in [0, 1]: one resize, a centre crop.

        `orig_size` is the true (height, width) of a picture that was squashed.
        """
        start = (self.shorter_side - self.side) // 2
        middle = slice(start, start + self.side)
        return fit(pixels, self.shorter_side, orig_size)[middle, middle]

    @torch.no_grad()
    def encode(self, prepared: Tensor) -> Tensor:
        """Features (N, D), float32 on the CPU, of prepared pictures (N, 1, side, side)."""
        return self.network(prepared.to(self.device)).float().cpu()

    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures that somebody made square; of another size, they are resized."""
        shape = (self.shorter_side, self.shorter_side)
        if images.shape[-2:] != shape:
            images = F.interpolate(images, shape, mode="bilinear", antialias=True)
        start = (self.shorter_side - self.side) // 2
        middle = slice(start, start + self.side)
        return self.encode(images[..., middle, middle] / 2 + 0.5)


def load_encoder(model_id: str | Path, device: str | None = None) -> Encoder:
    """An encoder by its id, folder or file.

    Args:
        model_id: one of ours; a transformers vision model (RAD-DINO, DINOv2, ViT); or the
            safetensors state dict, alone in a folder or not, of a network of `ARCHITECTURES`.
        device: where to put it; None is a GPU if there is one.

    Raises:
        InvalidInput: the model is no encoder, or its weights are not at hand.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = _state_dict_file(model_id)
    if weights is not None:
        return _from_state_dict(weights, device)
    model = resolve(model_id)
    network = load_components(model_id).get("model")
    if isinstance(network, CXREncoder):
        side, encode = network.config.sample_size, _for_cxr_encoder(network.to(device).eval())
        return Encoder(_id(model), side, side, encode, device)
    if network is None or type(network).__name__ not in VISION:
        raise InvalidInput(
            f"encoder is {str(model_id)!r}, which is no image encoder; name one, such as"
            " cxr-encoder-mini or the folder of RAD-DINO"
        )
    return _from_transformers(model, network.to(device).eval(), device)


def probabilities_of(
    classifier: CXRClassifier, model: ResolvedModel, device: str | None = None
) -> Encoder:
    """A classifier as an encoder: its probabilities are cached as features are."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    side = classifier.config.sample_size
    classifier.to(device)
    return Encoder(
        _id(model), side, side, lambda images: classifier.probabilities(images * 2 - 1), device
    )


def _id(model: ResolvedModel) -> str:
    name = model.id.partition("@")[0] if str(model.path) != model.id else model.path.resolve().name
    return f"{name}@{model.weight_sha256[:16]}"


def _for_cxr_encoder(network: CXREncoder) -> Callable[[Tensor], Tensor]:
    return lambda images: network(images * 2 - 1)


def _from_transformers(model: ResolvedModel, network: Any, device: str) -> Encoder:
    """Normalised as its preprocessor_config.json says; the pooled output or the class token."""
    path = model.path / PROCESSOR
    config = read_object(path) if path.is_file() else {}
    channels = network.config.num_channels
    side, shorter = _sides(config, int(network.config.image_size), path)
    mean, std = (each.to(device) for each in _mean_and_std(config, channels, path))
    if hasattr(network.config, "mask_ratio"):
        network.config.mask_ratio = 0.0  # a masked autoencoder would hide most of each image

    def encode(images: Tensor) -> Tensor:
        output = network((images.expand(-1, channels, -1, -1) - mean) / std)
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
        return features

    return Encoder(_id(model), side, shorter, encode, device)


def _mean_and_std(config: dict[str, Any], channels: int, path: Path) -> tuple[Tensor, Tensor]:
    """(1, channels, 1, 1) each, of pixels in [0, 1]."""
    if not config.get("do_normalize", True):
        return torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1)
    pair = config.get("image_mean", _RGB_MEAN), config.get("image_std", _RGB_STD)
    try:
        mean, std = (torch.tensor(each).float().reshape(1, channels, 1, 1) for each in pair)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelRefused(
            f"{path} has image_mean {pair[0]} and image_std {pair[1]}, but {channels} numbers are"
            " needed of each; fetch it again"
        ) from error
    if not (std > 0).all():
        raise ModelRefused(f"{path} has image_std {pair[1]}, which must be positive; correct it")
    return mean, std


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


def _densenet() -> nn.Module:
    """DenseNet-121 (Huang et al. 2017) of one channel, as TorchXRayVision (Cohen et al. 2022)."""
    from torchvision.models import DenseNet

    network = DenseNet(32, (6, 12, 24, 16), 64)
    network.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.classifier = nn.Identity()
    return network


def _inception() -> nn.Module:
    """InceptionV3 in the variant that Fréchet Inception distances are measured with."""
    from cleanfid import inception_pytorch as variant
    from torchvision.models import Inception3

    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = variant.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = variant.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = variant.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = variant.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = variant.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = variant.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = variant.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = variant.FIDInceptionE_1(1280)
    network.Mixed_7c = variant.FIDInceptionE_2(2048)
    network.fc = nn.Identity()
    return network


@dataclass(frozen=True)
class Architecture:
    """A network whose weights come as a bare state dict.

    Args:
        build: makes it without weights; it answers features.
        side: of its input, in pixels.
        scale: its input spans [-scale, scale].
        channels: of its input; grey is repeated.
        known_by: a tensor of its state dict and that tensor's shape.
        without: start of the names of tensors that features do not need.
        origin: where its state dict is to be had.
    """

    build: Callable[[], nn.Module]
    side: int
    scale: float
    channels: int
    known_by: tuple[str, list[int]]
    without: tuple[str, ...]
    origin: str


ARCHITECTURES = {
    "xrv-densenet121": Architecture(
        _densenet,
        side=224,
        scale=1024,
        channels=1,
        known_by=("features.conv0.weight", [64, 1, 7, 7]),
        without=("classifier.", "op_threshs"),
        origin='torchxrayvision.models.DenseNet(weights="densenet121-res224-all").state_dict()',
    ),
    # the 1008 classes tell it from torchvision's own weights, which give other features
    "inception-v3": Architecture(
        _inception,
        side=299,
        scale=1,
        channels=3,
        known_by=("fc.weight", [1008, 2048]),
        without=("fc.",),
        origin="pt_inception-2015-12-05-6726825d.pth of pytorch-fid",
    ),
}


def _state_dict_file(model_id: str | Path) -> Path | None:
    """The safetensors file that is named or lies alone, without a config, in a named folder."""
    path = Path(model_id)
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.is_dir() and not any((path / f"{n}.json").is_file() for n in ("config", "model_index")):
        files = sorted(path.glob("*.safetensors"))
        return files[0] if len(files) == 1 else None
    if not path.exists() and str(model_id) in ARCHITECTURES:
        raise InvalidInput(
            f"encoder is {str(model_id)!r}, whose weights do not come with medphantom: save"
            f" {ARCHITECTURES[str(model_id)].origin} with safetensors.torch.save_file, anywhere,"
            " and name that file; a pickle (.pt, .pth) is not read"
        )
    return None


def _from_state_dict(path: Path, device: str) -> Encoder:
    name = _architecture_of(path)
    kind = ARCHITECTURES[name]
    network = _with_weights(kind, path).to(device).eval().requires_grad_(False)

    def encode(images: Tensor) -> Tensor:
        scaled = (images * 2 - 1) * kind.scale
        features: Tensor = network(scaled.expand(-1, kind.channels, -1, -1))
        return features

    return Encoder(f"{name}@{file_sha256(path)[:16]}", kind.side, kind.side, encode, device)


def _architecture_of(path: Path) -> str:
    header = check_safetensors(path)
    for name, kind in ARCHITECTURES.items():
        tensor, shape = kind.known_by
        if header.get(tensor, {}).get("shape") == shape:
            return name
    raise InvalidInput(
        f"encoder is {path}, whose tensors are not those of {' or '.join(ARCHITECTURES)};"
        " save one of their state dicts, or name a model's folder"
    )


def _with_weights(kind: Architecture, path: Path) -> nn.Module:
    try:
        network = kind.build()
    except ImportError as error:
        raise InvalidInput(
            f"encoder {path} needs {error.name}, which is not installed; install medphantom[eval]"
        ) from error
    tensors = {
        name: tensor
        for name, tensor in load_file(path).items()
        if not name.startswith(kind.without)
    }
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelRefused(f"{path} does not fit: {error}; save the state dict again") from error
    return network
