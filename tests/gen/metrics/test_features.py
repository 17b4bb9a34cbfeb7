"""Features come from the encoder that was named, of every picture that can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from gen.errors import InvalidInput
from gen.metrics.features import features_of, load_encoder, pictures_in, read_pictures
from gen.models.cxr_encoder import CXREncoder

IMAGES = torch.randint(256, (5, 1, 40, 40), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    network = CXREncoder(32, (8, 16, 16), 8).eval()
    network.save_pretrained(tmp_path / "encoder")
    features = features_of(IMAGES, load_encoder(tmp_path / "encoder"), batch_size=2)
    with torch.no_grad():
        expected = network(IMAGES.float() / 127.5 - 1).numpy()
    assert np.allclose(features, expected, atol=1e-5)


def test_a_transformers_encoder_works_too(tmp_path: Path) -> None:
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    network = Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "vit")
    images = IMAGES[..., :28, :28]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shown = torch.cat(
        [(images.float() / 255 - m) / s for m, s in zip(mean, std, strict=True)], dim=1
    )
    with torch.no_grad():
        expected = network(shown).pooler_output.numpy()
    encoder = load_encoder(tmp_path / "vit")
    assert np.allclose(features_of(images, encoder), expected, atol=1e-5)
    assert features_of(IMAGES, encoder).shape == (5, 16)


def test_a_pipeline_is_no_encoder(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cxr-encoder-mini"):
        load_encoder(tiny_folder)


def test_contact_sheets_are_no_pictures_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no picture"):
        pictures_in(tmp_path)
    for name in ("b.png", "a.png", "grid.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in pictures_in(tmp_path)] == ["a.png", "b.png"]


def test_a_damaged_picture_costs_only_itself(tmp_path: Path) -> None:
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    images, errors = read_pictures(pictures_in(tmp_path), 32)
    assert images.shape == (1, 1, 32, 32)
    assert len(errors) == 1
    assert "b.png" in errors[0]
    with pytest.raises(InvalidInput, match="none of 1"):
        read_pictures([tmp_path / "b.png"], 32)


def test_pictures_are_read_in_order_and_counted(tmp_path: Path) -> None:
    for level in (10, 200):
        picture = np.full((64, 64), level, np.uint8)
        picture[0, 0] = 255
        Image.fromarray(picture).save(tmp_path / f"{level}.png")
    counts: list[int] = []
    images, errors = read_pictures(pictures_in(tmp_path), 64, counts.append)
    assert (images[:, 0, 32, 32].tolist(), images.dtype) == ([10, 200], torch.uint8)
    assert (errors, counts) == ([], [1, 1])
