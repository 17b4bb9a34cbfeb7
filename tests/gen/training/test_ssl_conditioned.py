"""The patch model's recipe: what conditions it, what learns, and what the finished folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gen.models.block_autoencoder import BlockAutoencoder
from gen.models.cxr_encoder import CXREncoder
from gen.store.card import read_card
from gen.store.loading import load_components
from gen.training.ssl_conditioned import (
    SSLConditionedConfig,
    build_networks,
    describe,
    disturb,
    row_weights,
    train_ssl_conditioned,
    training_loss,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an autoencoder and an encoder of colour."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, in_channels=3, out_channels=3, context_channels=8,
        num_context_blocks=1, refine_channels=8, num_refine_blocks=1, grain=False,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    CXREncoder(32, (8, 16, 16), 8, 3).save_pretrained(folder / "encoder")
    return folder


def config_of(data: Path, parts: Path, output: Path, **changes: Any) -> SSLConditionedConfig:
    """A config of two steps."""
    fields = {
        "data": data, "output": output, "num_steps": 2, "batch_size": 3, "learning_rate": 1e-3,
        "num_warmup_steps": 0, "patch_size": 32, "tile_size": 40,
        "tissue": {"spacings": {"large/*": 0.5}, "magnifications": [0.5, 1.0]},
        "autoencoder": parts / "vae", "encoder": str(parts / "encoder"),
        "block_out_channels": (16, 16), "layers_per_block": 1, "cross_attention_dim": 16,
        "num_tokens": 2,
    }  # fmt: skip
    return SSLConditionedConfig.model_validate({**fields, **changes})


def test_the_finished_folder_loads_and_names_its_encoder(
    stained: Path, parts: Path, tmp_path: Path
) -> None:
    folder = train_ssl_conditioned(config_of(stained, parts, tmp_path), lambda _: None)
    loaded = load_components(folder)
    assert sorted(loaded) == ["projection", "scheduler", "unet", "vae"]
    assert loaded["unet"].config.sample_size == 8
    assert loaded["projection"].config.embedding_dim == 8
    index = json.loads((folder / "model_index.json").read_text())
    assert index["encoder"] == str(parts / "encoder")
    assert next((tmp_path / "samples").glob("*.png"))
    card = read_card(folder)
    assert card is not None
    assert (card.task, card.modality, card.image_size, card.channels) == (
        "embedding-to-image", "SM", 32, 3,
    )  # fmt: skip
    assert [each.images for each in card.training_data] == [1]  # file, of all tiles


def test_training_goes_on_from_an_earlier_model(stained: Path, parts: Path, tmp_path: Path) -> None:
    earlier = train_ssl_conditioned(config_of(stained, parts, tmp_path), lambda _: None)
    config = config_of(stained, parts, tmp_path, base_model=earlier)
    networks = build_networks(config, torch.device("cpu"))
    for name, network in (("unet", networks.unet), ("projection", networks.projection)):
        expected = load_components(earlier)[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
        assert network.training


def test_a_patch_is_its_own_condition(stained: Path, parts: Path, tmp_path: Path) -> None:
    networks = build_networks(config_of(stained, parts, tmp_path), torch.device("cpu"))
    patches = torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    batch = describe(networks, patches, torch.tensor([0.5, 1.0]))
    assert torch.allclose(batch.embeddings.norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(batch.embeddings, networks.encoder.embed(patches))
    latents = networks.vae.encode(patches).latent_dist.mean * networks.vae.config.scaling_factor
    assert torch.equal(batch.latents, latents)


def test_only_a_dropped_embedding_teaches_the_null(
    stained: Path, parts: Path, tmp_path: Path
) -> None:
    for dropout, taught in ((0.0, False), (0.999, True)):
        config = config_of(stained, parts, tmp_path, embedding_dropout=dropout)
        networks = build_networks(config, torch.device("cpu"))
        batch = describe(networks, torch.zeros(4, 3, 32, 32), torch.full((4,), 0.5))
        training_loss(networks, config, batch, torch.Generator().manual_seed(0)).backward()
        gradient = networks.projection.null_embedding.grad
        assert gradient is not None
        assert bool(gradient.any()) is taught


def test_disturbed_embeddings_stay_on_the_sphere_at_the_angle_of_the_noise() -> None:
    embeddings = torch.nn.functional.normalize(torch.ones(2000, 64), dim=1)
    moved = disturb(embeddings, 0.02, torch.Generator().manual_seed(0))
    assert torch.allclose(moved.norm(dim=1), torch.ones(2000), atol=1e-5)
    # 63 of 64 directions are tangents: tan^2 = 63 * 0.02^2
    cosine = float((moved * embeddings).sum(1).mean())
    assert cosine == pytest.approx(1 / (1 + 63 * 0.02**2) ** 0.5, abs=1e-3)


def test_balance_draws_magnifications_equally_often() -> None:
    scales = torch.tensor([0.5] * 8 + [1.0] * 2)
    assert row_weights(scales, 0.0).unique().tolist() == [1.0]
    weights = row_weights(scales, 1.0)
    assert weights[:8].sum() == pytest.approx(float(weights[8:].sum()))
