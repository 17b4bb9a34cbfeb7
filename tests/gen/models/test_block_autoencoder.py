"""Before it learns, the block autoencoder is the Karhunen-Loeve transform."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder

IMAGES = torch.nn.functional.interpolate(
    torch.rand(20, 1, 8, 8, generator=torch.manual_seed(0)) * 2 - 1, (32, 32), mode="bilinear"
)


def fitted(latent_channels: int) -> BlockAutoencoder:
    """4x4 blocks, fitted to `IMAGES`."""
    vae = BlockAutoencoder(
        block_size=4, latent_channels=latent_channels, context_channels=8, refine_channels=8,
        shuffle=2, block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.fit(IMAGES)
    return vae.requires_grad_(False)


def reconstruct(vae: BlockAutoencoder) -> Tensor:
    """Through the posterior's mean and back."""
    return vae.decode(vae.encode(IMAGES).latent_dist.mean).sample


def blocks_of(images: Tensor) -> np.ndarray:
    """All 4x4 blocks as rows."""
    unfolded = images.unfold(2, 4, 4).unfold(3, 4, 4)
    return unfolded.reshape(-1, 16).double().numpy()


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_it_reconstructs_as_principal_components_do(kept: int) -> None:
    blocks = blocks_of(IMAGES)
    centred = blocks - blocks.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ components[:kept].T @ components[:kept] + blocks.mean(0)
    assert np.allclose(blocks_of(reconstruct(fitted(kept))), projected, atol=1e-4)


def test_all_components_lose_nothing() -> None:
    assert torch.allclose(reconstruct(fitted(16)), IMAGES, atol=1e-4)


def test_latents_have_power_one_and_deviations_of_the_root() -> None:
    blocks = blocks_of(IMAGES)
    values = np.linalg.eigvalsh(np.cov(blocks, rowvar=False, bias=True))[::-1][:5]
    latents = fitted(5).encode(IMAGES).latent_dist.mean
    deviations = latents.double().std(dim=(0, 2, 3), unbiased=False).numpy()
    assert latents.square().mean() == pytest.approx(1, rel=1e-3)
    assert np.allclose(deviations / deviations[0], (values / values[0]) ** 0.25, atol=1e-3)


def test_the_code_of_mean_colours_is_a_small_picture() -> None:
    images = torch.rand(6, 3, 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    vae = BlockAutoencoder(
        block_size=4, latent_channels=3, in_channels=3, out_channels=3, context_channels=8,
        refine_channels=8, shuffle=2, linear_code="mean", learned_encoder=False,
    )  # fmt: skip
    vae.fit(images)
    vae.requires_grad_(False)
    latents = vae.encode(images).latent_dist.mean
    assert latents.square().mean() == pytest.approx(1, rel=1e-3)
    small = torch.nn.functional.avg_pool2d(images, 4)
    decoded = torch.nn.functional.avg_pool2d(vae.linear_decode(latents), 4)
    assert torch.allclose(decoded, small, atol=1e-5)
    assert not any(name.startswith("encode_context") for name, _ in vae.named_parameters())


def test_detail_comes_from_a_finer_code(tmp_path: Path) -> None:
    colours: dict[str, Any] = {
        "latent_channels": 3, "in_channels": 3, "out_channels": 3, "context_channels": 8,
        "refine_channels": 8, "linear_code": "mean", "learned_encoder": False, "grain": False,
    }  # fmt: skip
    finer = {**colours, "block_size": 4, "shuffle": 2}
    images = torch.rand(6, 3, 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    vae = BlockAutoencoder(**colours, block_size=8, shuffle=4, finer=finer)
    vae.fit(images)
    vae.detailer.fit(images)
    latents = vae.requires_grad_(False).encode(images).latent_dist.mean
    assert latents.shape == (6, 3, 4, 4)
    small = torch.nn.functional.avg_pool2d(images, 8)
    smooth = torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")
    # before it learns, what the finer one makes of the small picture enlarged
    wanted = vae.detailer.decode(vae.detailer.encode(smooth).latent_dist.mean).sample
    assert torch.allclose(vae.decode(latents).sample, wanted, atol=1e-5)
    vae.save_pretrained(tmp_path)
    loaded = BlockAutoencoder.from_pretrained(tmp_path, use_safetensors=True).requires_grad_(False)
    assert torch.allclose(loaded.decode(latents).sample, wanted, atol=1e-5)


def test_there_are_no_more_mean_colours_than_colours() -> None:
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, in_channels=3, out_channels=3, context_channels=8,
        refine_channels=8, shuffle=2, linear_code="mean",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="latent_channels is 4, but a block has 3 mean colours"):
        vae.fit(torch.rand(2, 3, 16, 16))


def test_the_posterior_has_the_deviation_it_was_given() -> None:
    posterior = fitted(3).encode(IMAGES).latent_dist
    assert torch.allclose(posterior.std, torch.tensor(0.1))
    drawn = posterior.sample(torch.Generator().manual_seed(0)) - posterior.mean
    assert drawn.std() == pytest.approx(0.1, rel=0.05)


def test_it_comes_back_from_a_folder(tmp_path: Path) -> None:
    vae = fitted(3)
    vae.save_pretrained(tmp_path)
    loaded = BlockAutoencoder.from_pretrained(tmp_path, use_safetensors=True)
    assert torch.equal(reconstruct(vae), reconstruct(loaded.requires_grad_(False)))
