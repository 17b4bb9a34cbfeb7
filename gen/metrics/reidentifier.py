"""Re-identifiers: do two radiographs show the same patient?

Either the Siamese ResNet-50 of Packhäuser et al. 2022 (Deep learning-based patient
re-identification is able to exploit the biometric nature of medical chest X-ray data), which
CheXGenBench retrained on MIMIC-CXR, or the cosine between the features of any image encoder.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput, ModelRefused
from gen.metrics.reidentification import PairScore
from gen.store.weight_files import check_safetensors

NUM_FEATURES = 128
SIDE = 224  # CheXGenBench's; the paper's own network was trained at 256
# Of ImageNet, as in the paper's training; CheXGenBench itself leaves the normalisation out.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KNOWN_BY = {
    "model.conv1.weight": [64, 3, 7, 7],
    "model.fc.weight": [NUM_FEATURES, 2048],
    "fc_end.weight": [1, NUM_FEATURES],
}
_PARALLEL = "module."  # before every name where several GPUs trained
_BATCH = 16


def load_reidentifier(model_id: str | Path, device: str | None = None) -> PairScore:
    """A score of pairs of images by the id, folder or file of its network.

    Args:
        model_id: the safetensors state dict of the Siamese ResNet-50, alone in a folder or not;
            or anything that `gen.encoders.loading.load_encoder` reads.
        device: where to put it; None is a GPU if there is one.

    Returns:
        Pairs of images (K, 1, S, S) uint8 -> (K,) float32: of the Siamese network the probability
        in [0, 1] that they are of one patient, of an encoder the cosine in [-1, 1].

    Raises:
        InvalidInput: the model is neither.
        ModelRefused: its files are damaged, or see `gen.store.loading.load_components`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = _safetensors_alone(Path(model_id))
    if weights is not None and _is_siamese(weights):
        return _siamese_score(_with_weights(weights).to(device).eval(), device)
    try:
        encoder = load_encoder(model_id, device)
    except InvalidInput as error:
        raise InvalidInput(
            f"reidentifier is {str(model_id)!r}, which is neither the safetensors state dict of a"
            f" Siamese ResNet-50 ({', '.join(_KNOWN_BY)}) nor an image encoder: {error}"
        ) from error

    def score(images: Tensor, others: Tensor) -> Tensor:
        first, second = _each_once(lambda batch: encoder(batch * 2 - 1), images, others)
        return F.cosine_similarity(first, second)

    return score


class SiameseResNet(nn.Module):
    """ResNet-50 with sigmoid features; their absolute difference goes through one layer."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50

        self.model = resnet50(num_classes=NUM_FEATURES)
        self.fc_end = nn.Linear(NUM_FEATURES, 1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 128) in [0, 1] of normalised images (N, 3, 224, 224)."""
        return torch.sigmoid(self.model(images))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Probabilities (N,) that features (N, 128) each are of one patient."""
        return torch.sigmoid(self.fc_end((first - second).abs()))[:, 0]


def _siamese_score(network: SiameseResNet, device: str) -> PairScore:
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (_MEAN, _STD))

    def encode(batch: Tensor) -> Tensor:
        resized = F.interpolate(batch.to(device), (SIDE, SIDE), mode="bilinear", antialias=True)
        return network.features((resized - mean) / std)

    @torch.no_grad()
    def score(images: Tensor, others: Tensor) -> Tensor:
        return network(*_each_once(encode, images, others)).cpu()

    return score


def _each_once(
    encode: Callable[[Tensor], Tensor], images: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """Features of both sides; an image that many are compared with is encoded once.

    `encode` takes images (N, 1, S, S) in [0, 1].
    """
    unique, place = torch.unique(torch.cat([images, others]), dim=0, return_inverse=True)
    features = torch.cat([encode(batch.float() / 255) for batch in unique.split(_BATCH)])
    first, second = place.to(features.device).split(len(images))
    return features[first], features[second]


def _safetensors_alone(path: Path) -> Path | None:
    """The file that is named, or the only one in a folder that is named."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    (file,) = files if len(files) == 1 else (path,)
    return file if file.is_file() and file.suffix == ".safetensors" else None


def _is_siamese(weights: Path) -> bool:
    header = check_safetensors(weights)
    shapes = {name.removeprefix(_PARALLEL): entry for name, entry in header.items()}
    return all(shapes.get(name, {}).get("shape") == shape for name, shape in _KNOWN_BY.items())


def _with_weights(weights: Path) -> SiameseResNet:
    try:
        network = SiameseResNet()
    except ImportError as error:
        raise InvalidInput(
            f"reidentifier {weights} needs {error.name}, which is not installed; install"
            " medphantom[eval]"
        ) from error
    tensors = {name.removeprefix(_PARALLEL): each for name, each in load_file(weights).items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]  # of some hundred names
        raise ModelRefused(f"{weights} does not fit: {first}...; save it again") from error
    return network.requires_grad_(False)
