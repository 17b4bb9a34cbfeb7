"""Networks that come as bare weights give the features their authors measure with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import inception_pytorch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import DenseNet, Inception3

from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput, ModelRefused

NOISE = np.random.default_rng(0).random((300, 400), np.float32)


def as_batch(pixels: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels))[None, None]


@pytest.fixture(scope="module")
def densenet() -> DenseNet:
    """With statistics that scale inputs of some hundred to some units, as training leaves them."""
    torch.manual_seed(0)
    network = DenseNet(32, (6, 12, 24, 16), 64, num_classes=18)
    network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.features.norm0.running_var.fill_(600.0**2)
    return network.eval()


@pytest.fixture(scope="module")
def xrv(densenet: DenseNet, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("xrv")
    save_file(densenet.state_dict() | {"op_threshs": torch.ones(18)}, folder / "w.safetensors")
    return load_encoder(folder)


def test_torchxrayvision_features_are_of_pixels_from_minus_to_plus_1024(
    xrv: Encoder, densenet: DenseNet
) -> None:
    prepared = as_batch(xrv.prepare(NOISE))
    with torch.no_grad():
        grid = F.relu(densenet.features((prepared * 2 - 1) * 1024))
    expected = F.adaptive_avg_pool2d(grid, 1).flatten(1)
    features = xrv.encode(prepared)
    assert features.shape == (1, 1024)
    assert features.std() > 0
    assert torch.allclose(features, expected, atol=1e-4, rtol=1e-4)
    assert xrv.id.startswith("xrv-densenet121@")


def test_inception_features_are_those_of_frechet_inception_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights = Inception3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    save_file(weights, tmp_path / "inception.safetensors")
    encoder = load_encoder(tmp_path / "inception.safetensors")
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: weights)
    monkeypatch.setattr(
        inception_pytorch.torchvision.models,
        "inception_v3",
        lambda num_classes, aux_logits, pretrained, init_weights: Inception3(
            num_classes, aux_logits, init_weights=init_weights
        ),
    )
    reference = inception_pytorch.InceptionV3(resize_input=False).eval()
    prepared = as_batch(encoder.prepare(NOISE))
    with torch.no_grad():
        expected = reference(prepared.expand(-1, 3, -1, -1))[0].flatten(1)
    assert prepared.shape[-2:] == (299, 299)
    assert expected.std() > 0
    assert torch.allclose(encoder.encode(prepared), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["inception-v3", "xrv-densenet121"])
def test_weights_that_are_not_at_hand_are_asked_for_as_safetensors(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"safetensors.torch.save_file.*a pickle .* is not read"):
        load_encoder(name)


def test_other_state_dicts_and_pickles_are_refused(tmp_path: Path, densenet: DenseNet) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({"fc.weight": torch.zeros(1000, 8)}, weights)
    with pytest.raises(InvalidInput, match="not those of xrv-densenet121 or inception-v3"):
        load_encoder(weights)
    some = {"features.conv0.weight": densenet.features.conv0.weight.data}
    save_file(some, weights)
    with pytest.raises(ModelRefused, match="does not fit"):
        load_encoder(weights)
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(ModelRefused, match="pickle"):
        load_encoder(tmp_path / "w.pt")
