"""Features come from the encoder that was named, of every picture that can be read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import inception_pytorch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import DenseNet, Inception3
from transformers import Dinov2Config, Dinov2Model, ViTMAEConfig, ViTMAEModel

from gen.data.collection import pictures_in
from gen.data.transforms import fit
from gen.errors import InvalidInput, ModelRefused
from gen.metrics.encoders import Encoder, load_encoder
from gen.metrics.features import features_of
from gen.models.cxr_encoder import CXREncoder

IMAGES = torch.randint(256, (5, 1, 40, 40), dtype=torch.uint8, generator=torch.manual_seed(0))
NOISE = np.random.default_rng(0).random((300, 400), np.float32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dinov2(folder: Path) -> Dinov2Model:
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    network = Dinov2Model(config).eval()
    network.save_pretrained(folder)
    return network


def normalised(
    prepared: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    return torch.cat([(prepared - m) / s for m, s in zip(mean, std, strict=True)], dim=1)


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


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    network = CXREncoder(32, (8, 16, 16), 8).eval()
    network.save_pretrained(tmp_path / "encoder")
    encoder = load_encoder(tmp_path / "encoder")
    with torch.no_grad():
        expected = network(IMAGES.float() / 127.5 - 1).numpy()
    assert np.allclose(features_of(IMAGES, encoder, batch_size=2), expected, atol=1e-5)
    prepared = IMAGES[..., :32, :32]
    with torch.no_grad():
        expected = network(prepared.float() / 127.5 - 1).numpy()
    assert np.allclose(encoder.encode(prepared.float() / 255), expected, atol=1e-5)


def test_an_encoder_is_known_by_its_weights_wherever_they_lie(tmp_path: Path) -> None:
    network = CXREncoder(32, (8, 16, 16), 8)
    for place in ("here", "there"):
        network.save_pretrained(tmp_path / place / "encoder")
    ids = [load_encoder(tmp_path / place / "encoder").id for place in ("here", "there")]
    assert ids[0] == ids[1]
    assert ids[0].startswith("encoder@")
    with torch.no_grad():
        network.head.bias += 1
    network.save_pretrained(tmp_path / "there" / "encoder")
    assert load_encoder(tmp_path / "there" / "encoder").id != ids[0]


def test_a_transformers_encoder_works_too(tmp_path: Path) -> None:
    network = dinov2(tmp_path / "vit")
    images = IMAGES[..., :28, :28]
    with torch.no_grad():
        expected = network(normalised(images.float() / 255, MEAN, STD)).pooler_output.numpy()
    encoder = load_encoder(tmp_path / "vit")
    assert np.allclose(features_of(images, encoder), expected, atol=1e-5)
    assert features_of(IMAGES, encoder).shape == (5, 16)


def test_a_preprocessor_file_gives_sizes_mean_and_deviation(tmp_path: Path) -> None:
    network = dinov2(tmp_path)
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
    config = {
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 42, "width": 42},
        "image_mean": mean,
        "image_std": std,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    encoder = load_encoder(tmp_path)
    prepared = encoder.prepare(NOISE)
    assert np.array_equal(prepared, fit(NOISE, 56)[7:49, 7:49])
    with torch.no_grad():
        expected = network(normalised(as_batch(prepared), mean, std)).pooler_output
    assert torch.allclose(encoder.encode(as_batch(prepared)), expected, atol=1e-5)
    assert torch.allclose(encoder(as_batch(fit(NOISE, 56)) * 2 - 1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"size": {"height": 28, "width": 56}}, "asks for the size"),
        ({"size": "large"}, "asks for the size"),
        ({"image_mean": [0.5, 0.5]}, "3 numbers are needed"),
        ({"image_std": [1, 1, 0]}, "must be positive"),
    ],
)
def test_a_preprocessor_file_that_makes_no_sense_is_refused(
    tmp_path: Path, config: dict[str, object], word: str
) -> None:
    dinov2(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match=word):
        load_encoder(tmp_path)


def test_a_masked_autoencoder_sees_the_whole_image(tmp_path: Path) -> None:
    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTMAEModel(config).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    prepared = as_batch(encoder.prepare(NOISE))
    assert torch.allclose(encoder.encode(prepared), encoder.encode(prepared), atol=1e-5)


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


@pytest.mark.parametrize("wide", [True, False])
def test_a_picture_twice_as_long_as_wide_is_cropped_on_its_long_axis(
    xrv: Encoder, wide: bool
) -> None:
    """Elsewhere a crop of (N, C, H, W) cut channels and height: nothing, or the wrong axis."""
    pixels = np.full((448, 896), 0.5, np.float32)
    pixels[:, :216] = pixels[:, -216:] = 1  # beyond the square in the middle, less 8 pixels
    pixels[:16] = pixels[-16:] = 0  # inside it
    square = xrv.prepare(pixels if wide else pixels.T)
    square = square if wide else square.T
    assert square.shape == (224, 224)
    assert square.max() < 0.6
    assert np.allclose(square[[0, 4, -5, -1]], 0, atol=0.02)
    assert np.allclose(square[16:-16], 0.5, atol=0.02)


def test_an_encoder_gets_one_resize_of_the_original(xrv: Encoder) -> None:
    """Elsewhere pictures are made 299 pixels a side first, which blurs them."""
    noise = np.random.default_rng(1).random((600, 600), np.float32)
    original = Image.fromarray(noise)
    once = original.resize((224, 224), Image.Resampling.LANCZOS)
    twice = original.resize((299, 299), Image.Resampling.LANCZOS).resize(
        (224, 224), Image.Resampling.LANCZOS
    )
    prepared = xrv.prepare(noise)
    assert np.array_equal(prepared, np.clip(np.asarray(once), 0, 1))
    assert np.abs(prepared - np.asarray(twice)).max() > 0.02


def test_a_squashed_picture_gets_its_shape_back_in_the_same_resize(xrv: Encoder) -> None:
    squashed = np.tile(np.linspace(0, 1, 224, dtype=np.float32), (224, 1))
    whole = xrv.prepare(squashed)
    middle = xrv.prepare(squashed, orig_size=(500, 1000))
    assert np.allclose(middle, np.linspace(0.25, 0.75, 224), atol=0.01)
    assert np.ptp(whole) > 0.98


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


def test_a_pipeline_is_no_encoder(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cxr-encoder-mini"):
        load_encoder(tiny_folder)


def test_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no picture"):
        pictures_in(tmp_path)
