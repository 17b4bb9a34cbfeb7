"""Features come from the encoder that was named, of every picture that can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.collection import pictures_in
from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.metrics.features import features_of
from gen.models.cxr_encoder import CXREncoder

IMAGES = torch.randint(256, (5, 1, 40, 40), dtype=torch.uint8, generator=torch.manual_seed(0))


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


def test_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no picture"):
        pictures_in(tmp_path)
