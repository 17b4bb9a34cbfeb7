"""Any encoder of the model store is loaded by its id, folder or file, and known by its weights."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.models.cxr_encoder import CXREncoder
from gen.store.catalogue import resolve

COLOUR = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(0)) * 2 - 1


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


def test_the_embedded_encoder_is_known_by_its_card() -> None:
    model = resolve("cxr-encoder-mini")
    assert model.card is not None
    encoder = load_encoder("cxr-encoder-mini", "cpu")
    assert encoder.id == f"cxr-encoder-mini@{model.card.weight_sha256[:16]}"
    assert encoder.channels == 1


def test_an_encoder_of_tissue_sees_colour(tmp_path: Path) -> None:
    network = CXREncoder(64, (8, 16, 16), 8, in_channels=3).eval()
    network.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, "cpu")
    with torch.no_grad():
        expected = network(COLOUR)
    assert torch.allclose(encoder(COLOUR), expected, atol=1e-5)
    assert torch.allclose(encoder.embed(COLOUR), F.normalize(expected, dim=1), atol=1e-5)


def test_tokens_of_our_encoder_share_the_direction_of_their_place(tmp_path: Path) -> None:
    """Before normalising, features are the mean of the patches'."""
    network = CXREncoder(64, (8, 16, 16), 8, in_channels=3).eval()
    network.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, "cpu")
    assert encoder.patch_network is not None
    with torch.no_grad():
        patches = encoder.patch_network(COLOUR / 2 + 0.5)
    assert patches.shape == (2, 8, 8, 8)
    assert torch.allclose(patches.mean((1, 2)), encoder(COLOUR), atol=1e-5)
    assert torch.allclose(encoder.tokens(COLOUR), F.normalize(patches, dim=-1), atol=1e-5)


def test_a_pipeline_is_no_encoder(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cxr-encoder-mini"):
        load_encoder(tiny_folder)
