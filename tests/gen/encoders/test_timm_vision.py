"""Folders of timm's vision transformers give the features that timm gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from gen.data.transforms import fit
from gen.encoders.loading import load_encoder
from gen.errors import ModelRefused
from gen.store.timm_folder import ARCHITECTURES

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
COLOUR = torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0)) * 2 - 1


def saved(folder: Path, *, num_classes: int = 0, **arguments: Any) -> nn.Module:
    """A small network with random weights, saved as timm saves it for the hub."""
    torch.manual_seed(0)
    network = timm.create_model(NAME, num_classes=num_classes, **SMALL, **arguments).eval()
    network.requires_grad_(False)
    for parameter in network.parameters():  # timm starts at zeros and ones, which hide mistakes
        parameter += 0.1 * torch.randn_like(parameter)
    save_for_hf(network, folder, safe_serialization=True)
    return network


def normalised(images: Tensor, network: nn.Module) -> Tensor:
    mean, std = (
        torch.tensor(network.pretrained_cfg[name]).reshape(1, 3, 1, 1) for name in ("mean", "std")
    )
    return (images / 2 + 0.5 - mean) / std


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"init_values": 1e-5, "dynamic_img_size": True},  # as UNI
        {"reg_tokens": 4, "no_embed_class": True},  # as H-optimus
        {"global_pool": "avg"},
    ],
)
def test_features_and_tokens_are_those_of_timm(tmp_path: Path, arguments: dict[str, Any]) -> None:
    network = saved(tmp_path, **arguments)
    edit(tmp_path, pretrained_cfg={**network.pretrained_cfg, "crop_pct": 1.0})
    encoder = load_encoder(tmp_path, "cpu")
    features = network(normalised(COLOUR, network))
    assert torch.allclose(encoder(COLOUR), features, atol=1e-5)
    assert torch.allclose(encoder.embed(COLOUR), F.normalize(features, dim=1), atol=1e-5)
    tokens = network.forward_features(normalised(COLOUR, network))[:, network.num_prefix_tokens :]
    assert torch.allclose(
        encoder.tokens(COLOUR), F.normalize(tokens, dim=-1).unflatten(1, (4, 4)), atol=1e-5
    )


def test_a_classifier_gives_the_features_before_its_classes(tmp_path: Path) -> None:
    network = saved(tmp_path, num_classes=5)
    edit(tmp_path, pretrained_cfg={**network.pretrained_cfg, "crop_pct": 1.0})
    features = network.forward_features(normalised(COLOUR, network))[:, 0]
    assert torch.allclose(load_encoder(tmp_path, "cpu")(COLOUR), features, atol=1e-5)


def test_layers_that_are_classes_in_python_are_words_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.5}  # as UNI 2
    network = timm.create_model(NAME, num_classes=0, **SMALL, **gated).eval().requires_grad_(False)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    words = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    config = {
        "architecture": NAME,
        "model_args": SMALL | gated | words,
        "pretrained_cfg": {"mean": network.pretrained_cfg["mean"], "std": [0.5] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    features = network(normalised(COLOUR, network))
    assert torch.allclose(load_encoder(tmp_path, "cpu")(COLOUR), features, atol=1e-5)


def test_without_words_on_pixels_they_are_as_dino_has_them(tmp_path: Path) -> None:
    """As a file of DINO's own weights is turned into a folder by hand."""
    network = saved(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME, "model_args": SMALL}))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network.pretrained_cfg |= {"mean": mean, "std": std}
    encoder = load_encoder(tmp_path, "cpu")
    assert torch.allclose(encoder(COLOUR), network(normalised(COLOUR, network)), atol=1e-5)
    assert (encoder.side, encoder.shorter_side) == (32, 32)


def test_a_crop_is_cut_from_the_middle(tmp_path: Path) -> None:
    network = saved(tmp_path)
    edit(tmp_path, pretrained_cfg={**network.pretrained_cfg, "crop_pct": 0.8})
    encoder = load_encoder(tmp_path, "cpu")
    noise = np.random.default_rng(0).random((100, 120), np.float32)
    assert np.array_equal(encoder.prepare(noise), fit(noise, 40)[4:36, 4:36])


def test_it_is_known_by_its_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    before = load_encoder(tmp_path, "cpu").id
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"norm.bias": tensors["norm.bias"] + 1}, path)
    assert load_encoder(tmp_path, "cpu").id != before
    assert before.startswith(f"{tmp_path.name}@")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"crop_pct": 0}, "crop_pct 0"),
        ({"mean": [0.5]}, "3 numbers are needed"),
        ({"std": [1, 1, 0]}, "must be positive"),
        (7, "must be an object"),
    ],
)
def test_words_on_pixels_that_make_no_sense_are_refused(
    tmp_path: Path, config: Any, word: str
) -> None:
    saved(tmp_path)
    edit(tmp_path, pretrained_cfg=config)
    with pytest.raises(ModelRefused, match=word):
        load_encoder(tmp_path, "cpu")


def test_the_list_names_architectures_of_timm() -> None:
    assert set(timm.list_models("vit_*")) >= ARCHITECTURES
