"""Networks whose weights come as a bare safetensors state dict, known by their tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput, ModelRefused
from gen.store.card import file_sha256
from gen.store.weight_files import check_safetensors


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
        channels: of its input.
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


def state_dict_file(model_id: str | Path) -> Path | None:
    """The safetensors file that is named or lies alone, without a config, in a named folder.

    Raises:
        InvalidInput: a name of `ARCHITECTURES`, whose weights have to be fetched first.
    """
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


def from_state_dict(path: Path, device: str) -> Encoder:
    """The network of `ARCHITECTURES` whose tensors a file holds.

    Raises:
        InvalidInput: the tensors are of no such network, or a package is not installed.
        ModelRefused: the file is damaged or incomplete.
    """
    name = _architecture_of(path)
    kind = ARCHITECTURES[name]
    network = _with_weights(kind, path).to(device).eval().requires_grad_(False)

    def encode(images: Tensor) -> Tensor:
        features: Tensor = network((images * 2 - 1) * kind.scale)
        return features

    encoder_id = f"{name}@{file_sha256(path)[:16]}"
    return Encoder(encoder_id, kind.side, kind.side, encode, device, kind.channels)


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
