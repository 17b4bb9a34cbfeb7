"""The recipe of the prior: true captions, grids in their place, both models saved."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder
from gen.models.cxr_encoder import CXREncoder
from gen.models.ssl_projection import SSLProjection
from gen.store.card import read_card
from gen.store.loading import load_components
from gen.store.saving import save_components
from gen.training.diffusion import DiffusionConfig, noise_schedule
from gen.training.embedding_prior import (
    EmbeddedRegion,
    EmbeddingPriorConfig,
    draw,
    embed_region,
    names_of,
    phrase,
    train_embedding_prior,
)
from gen.training.unet import UNetConfig, build_unet


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch model with random weights and its encoder beside it."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8, 3).save_pretrained(folder / "encoder")
    loop = {"data": folder, "output": folder, "num_steps": 1, "batch_size": 1, "learning_rate": 1}
    unet = UNetConfig.model_validate({**loop, "block_out_channels": (16, 16)})
    components = {
        "vae": BlockAutoencoder(
            block_size=4, latent_channels=4, in_channels=3, out_channels=3, context_channels=8,
            num_context_blocks=1, refine_channels=8, num_refine_blocks=1, grain=False,
        ),
        "unet": build_unet(unet, 4, 8, 16),
        "projection": SSLProjection(8, 16, 2),
        "scheduler": noise_schedule(DiffusionConfig.model_validate(loop)),
    }  # fmt: skip
    settings = {"encoder": str(folder / "encoder")}
    save_components(folder / "model", components, "LargeImagePipeline", settings)
    return folder


def config_of(data: Path, base: Path, output: Path, **changes: Any) -> EmbeddingPriorConfig:
    """A config of two steps."""
    fields = {
        "data": data, "output": output, "num_steps": 2, "batch_size": 3, "learning_rate": 1e-3,
        "num_warmup_steps": 0, "base_model": base / "model", "patch_size": 32, "pitch": 16,
        "grid_size": 4, "tissue": {"spacings": {"*": 0.5}, "magnifications": [0.5]},
        "block_out_channels": (16, 16), "layers_per_block": 1, "text_hidden_size": 16,
        "text_num_layers": 1, "vocab_size": 600, "max_length": 16,
    }  # fmt: skip
    return EmbeddingPriorConfig.model_validate({**fields, **changes})


def test_the_finished_folder_holds_both_models(stained: Path, base: Path, tmp_path: Path) -> None:
    folder = train_embedding_prior(config_of(stained, base, tmp_path), lambda _: None)
    loaded = load_components(folder)
    assert {"vae", "unet", "projection", "scheduler"} < loaded.keys()
    assert loaded["prior"].config.in_channels == 8
    assert loaded["prior"].config.sample_size == 4
    assert loaded["prior"].config.cross_attention_dim == loaded["text_encoder"].config.hidden_size
    card = read_card(folder)
    assert card is not None
    assert (card.task, card.image_size) == ("embedding-to-image", 32)
    assert [each.images for each in card.training_data] == [3]  # files, of all magnifications


def test_a_model_without_an_encoder_is_refused(stained: Path, base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "model_index.json").write_text("{}")
    config = config_of(stained, base, tmp_path, base_model=bare)
    with pytest.raises(InvalidInput, match="names no encoder"):
        train_embedding_prior(config, lambda _: None)


def test_a_grid_keeps_the_place_of_what_it_describes(base: Path, tmp_path: Path) -> None:
    pixels = np.full((64, 96, 3), 250, np.uint8)
    pixels[16:32, 64:80] = (80, 40, 130)  # row 1, column 4 of a pitch of 16
    encoder = load_encoder(base / "encoder", "cpu")
    config = config_of(tmp_path, base, tmp_path, patch_size=16)
    region = embed_region(pixels, (), encoder, config)
    assert region.embeddings.shape == (8, 4, 6)
    glass = region.shares[1]
    assert glass[1, 4] == 0
    assert glass.sum() == 23
    odd = (region.embeddings - region.embeddings[:, :1, :1]).norm(dim=0)
    assert odd.argmax() == 1 * 6 + 4


def test_a_crops_shares_are_its_own() -> None:
    shares = torch.arange(32.0).view(2, 4, 4)
    region = EmbeddedRegion(torch.randn(8, 4, 4), shares, ())
    whole, mean = region.crop(4, torch.Generator())
    assert torch.equal(whole, region.embeddings)
    assert mean.tolist() == [7.5, 23.5]
    part, mean = region.crop(1, torch.Generator().manual_seed(3))
    place = (region.embeddings == part).all(dim=0)
    assert mean.tolist() == shares[:, place].squeeze(1).tolist()


def test_grids_have_about_unit_variance_and_some_captions_are_empty(
    base: Path, tmp_path: Path
) -> None:
    grid = torch.nn.functional.normalize(torch.randn(64, 8, 8), dim=0)
    region = EmbeddedRegion(grid, torch.full((2, 8, 8), 0.1), ("stroma",))
    config = config_of(tmp_path, base, tmp_path, batch_size=200, caption_dropout=0.3)
    grids, captions = draw([region], config, torch.Generator().manual_seed(0))
    assert grids.square().mean() == pytest.approx(1, abs=1e-4)
    assert 40 < sum(not caption for caption in captions) < 80


def test_captions_use_only_what_is_known() -> None:
    rng = random.Random(0)
    made = {phrase(["stroma"], 0.3, 0.5, rng) for _ in range(200)}
    words = {word for caption in made for word in caption.split(", ")}
    assert words == {"H&E stained tissue", "stroma", "many nuclei", "beside empty glass"}


def test_names_are_the_findings_and_those_of_the_file() -> None:
    fields = {"file": "large/a.png", "findings": "stroma|tumour"}
    assert names_of(fields, {"large/*": "skin", "*": "other"}) == ("stroma", "tumour", "skin")
    assert names_of({"file": "a", "findings": ""}, {}) == ()
