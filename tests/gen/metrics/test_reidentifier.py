"""A re-identifier scores a pair by what its network's formula says, whatever file it came from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import ResNet, resnet50

from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput, ModelRefused
from gen.metrics.features import features_of
from gen.metrics.reidentification import PairScore
from gen.metrics.reidentifier import load_reidentifier
from gen.models.cxr_encoder import CXREncoder

IMAGES, OTHERS = torch.randint(
    256, (2, 2, 1, 48, 48), dtype=torch.uint8, generator=torch.manual_seed(0)
)
WEIGHT = torch.randn(1, 128, generator=torch.manual_seed(1))
BIAS = 0.7


def prepared(images: Tensor) -> Tensor:
    """At 224 pixels, in three channels with ImageNet's mean and deviation."""
    grey = F.interpolate(images.float() / 255, (224, 224), mode="bilinear", antialias=True)
    channels = [(grey - 0.485) / 0.229, (grey - 0.456) / 0.224, (grey - 0.406) / 0.225]
    return torch.cat(channels, 1)


@pytest.fixture(scope="module")
def network() -> ResNet:
    """Random weights whose statistics are those of the images, so that features differ."""
    torch.manual_seed(0)
    network = resnet50(num_classes=128)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(prepared(torch.cat([IMAGES, OTHERS])))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def state(network: ResNet) -> dict[str, Tensor]:
    named = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    return named | {"fc_end.weight": WEIGHT, "fc_end.bias": torch.tensor([BIAS])}


@pytest.fixture(scope="module")
def siamese(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> PairScore:
    folder = tmp_path_factory.mktemp("siamese")
    save_file(state, folder / "w.safetensors")
    return load_reidentifier(folder, "cpu")


def test_the_siamese_score_is_the_sigmoid_of_weighted_feature_differences(
    siamese: PairScore, network: ResNet
) -> None:
    first, second = (network(prepared(each)).sigmoid() for each in (IMAGES, OTHERS))
    assert (first - second).abs().mean() > 0.01
    expected = torch.sigmoid((first - second).abs() @ WEIGHT[0] + BIAS)
    assert torch.allclose(siamese(IMAGES, OTHERS), expected, atol=1e-4)


def test_identical_images_score_the_sigmoid_of_the_bias(siamese: PairScore) -> None:
    same = torch.sigmoid(torch.tensor([BIAS, BIAS]))
    assert torch.equal(siamese(IMAGES, IMAGES.clone()), same)


def test_a_score_is_the_same_both_ways_and_beside_other_pairs(siamese: PairScore) -> None:
    # as `reidentification.prompt_risk` asks: one image, expanded, against many
    many = siamese(IMAGES[:1].expand_as(OTHERS), OTHERS)
    assert torch.allclose(many[1:], siamese(OTHERS[1:], IMAGES[:1]), atol=1e-4)


def test_a_state_dict_of_several_gpus_is_recognised_too(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    save_file(parallel, tmp_path / "w.safetensors")
    score = load_reidentifier(tmp_path / "w.safetensors", "cpu")
    assert torch.equal(score(IMAGES[:1], IMAGES[:1]), torch.sigmoid(torch.tensor([BIAS])))


def test_an_incomplete_siamese_network_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    kept = ("model.conv1.weight", "model.fc.weight", "fc_end.weight")
    save_file({name: state[name] for name in kept}, tmp_path / "w.safetensors")
    with pytest.raises(ModelRefused, match=r"does not fit.*model\.bn1\.weight"):
        load_reidentifier(tmp_path)


def test_an_encoder_scores_by_the_cosine_of_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(tmp_path)
    score = load_reidentifier(tmp_path, "cpu")
    encoder = load_encoder(tmp_path, "cpu")
    first, second = (torch.from_numpy(features_of(each, encoder)) for each in (IMAGES, OTHERS))
    cosine = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    assert score(IMAGES, OTHERS).double().numpy() == pytest.approx(cosine.numpy(), abs=1e-5)
    assert score(IMAGES, IMAGES).numpy() == pytest.approx(1, abs=1e-6)
    assert (cosine < 1 - 1e-5).all()


def test_what_is_neither_is_named(
    state: dict[str, Tensor], tiny_folder: Path, tmp_path: Path
) -> None:
    # another number of features is another network
    save_file({**state, "fc_end.weight": torch.zeros(1, 64)}, tmp_path / "w.safetensors")
    for model in (tmp_path / "w.safetensors", tiny_folder, tmp_path / "tiny" / "unet"):
        with pytest.raises(
            InvalidInput, match=r"neither .*Siamese ResNet-50.*nor an image encoder"
        ):
            load_reidentifier(model)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(ModelRefused, match="pickle"):
        load_reidentifier(tmp_path / "w.pth")
    (tmp_path / "v.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelRefused, match="header"):
        load_reidentifier(tmp_path / "v.safetensors")
