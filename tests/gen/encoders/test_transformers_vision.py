"""Vision models of transformers see normalised pixels; their patches keep their places."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from gen.data.transforms import fit
from gen.encoders.loading import load_encoder
from gen.errors import ModelRefused
from gen.metrics.features import features_of

IMAGES = torch.randint(256, (5, 1, 40, 40), dtype=torch.uint8, generator=torch.manual_seed(0))
COLOUR = torch.rand(2, 3, 28, 28, generator=torch.manual_seed(0)) * 2 - 1
NOISE = np.random.default_rng(0).random((300, 400), np.float32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}


def dinov2(folder: Path) -> Dinov2Model:
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    network = Dinov2Model(config).eval()
    network.save_pretrained(folder)
    return network


def masked_autoencoder(folder: Path) -> ViTMAEModel:
    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8,
    )  # fmt: skip
    network = ViTMAEModel(config).eval()
    network.save_pretrained(folder)
    return network


def normalised(
    prepared: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Grey or RGB, as three channels."""
    channels = prepared.expand(-1, 3, -1, -1).split(1, dim=1)
    return torch.cat([(c - m) / s for c, m, s in zip(channels, mean, std, strict=True)], dim=1)


def as_batch(pixels: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels))[None, None]


def test_a_transformers_encoder_works_too(tmp_path: Path) -> None:
    network = dinov2(tmp_path / "vit")
    images = IMAGES[..., :28, :28]
    with torch.no_grad():
        expected = network(normalised(images.float() / 255, MEAN, STD)).pooler_output.numpy()
    encoder = load_encoder(tmp_path / "vit")
    assert np.allclose(features_of(images, encoder), expected, atol=1e-5)
    assert features_of(IMAGES, encoder).shape == (5, 16)


def test_colour_reaches_the_network_as_colour(tmp_path: Path) -> None:
    network = dinov2(tmp_path)
    with torch.no_grad():
        expected = network(normalised(COLOUR / 2 + 0.5, MEAN, STD)).pooler_output
    encoder = load_encoder(tmp_path)
    assert torch.allclose(encoder(COLOUR), expected, atol=1e-5)
    assert torch.allclose(encoder.embed(COLOUR), F.normalize(expected, dim=1), atol=1e-5)
    assert not torch.allclose(encoder(COLOUR.mean(1, keepdim=True)), expected, atol=1e-3)


def test_a_network_of_grey_pictures_gets_grey(tmp_path: Path) -> None:
    network = ViTModel(ViTConfig(**SMALL, num_channels=1, patch_size=14)).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    with torch.no_grad():
        expected = network(COLOUR[:, :1] / 2 + 0.5).pooler_output
    encoder = load_encoder(tmp_path)
    assert torch.allclose(encoder(COLOUR[:, :1]), expected, atol=1e-5)
    assert encoder(COLOUR).shape == expected.shape


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    ViTModel(ViTConfig(**SMALL, num_channels=4, patch_size=14)).save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match="4 input channels"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("registers", [0, 3])
def test_tokens_are_those_of_patches_alone_row_by_row(tmp_path: Path, registers: int) -> None:
    sizes = SMALL | {"patch_size": 7}
    network = (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers))
        if registers
        else Dinov2Model(Dinov2Config(**sizes))
    ).eval()
    network.save_pretrained(tmp_path)
    with torch.no_grad():
        hidden = network(normalised(COLOUR / 2 + 0.5, MEAN, STD)).last_hidden_state
    tokens = load_encoder(tmp_path).tokens(COLOUR)
    assert tokens.shape == (2, 4, 4, 16)
    for row, col in ((0, 0), (0, 3), (2, 1)):
        expected = F.normalize(hidden[:, 1 + registers + 4 * row + col], dim=-1)
        assert torch.allclose(tokens[:, row, col], expected, atol=1e-5)


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
    masked_autoencoder(tmp_path)
    encoder = load_encoder(tmp_path)
    prepared = as_batch(encoder.prepare(NOISE))
    assert torch.allclose(encoder.encode(prepared), encoder.encode(prepared), atol=1e-5)


def test_patches_of_a_masked_autoencoder_are_put_back_in_their_places(tmp_path: Path) -> None:
    network = masked_autoencoder(tmp_path)
    network.config.mask_ratio = 0.0
    images = F.interpolate(COLOUR, (32, 32))
    in_order = torch.arange(16.0).expand(2, -1)
    with torch.no_grad():
        output = network(normalised(images / 2 + 0.5, MEAN, STD), noise=in_order)
    expected = F.normalize(output.last_hidden_state[:, 1:], dim=-1).unflatten(1, (4, 4))
    assert torch.allclose(load_encoder(tmp_path).tokens(images), expected, atol=1e-5)
