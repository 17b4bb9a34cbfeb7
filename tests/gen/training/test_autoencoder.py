"""The autoencoder recipe's losses in closed form, and what it leaves untouched."""

import math
from pathlib import Path

import pytest
import torch

from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder
from gen.training.autoencoder import (
    AutoencoderConfig,
    balance,
    build,
    freeze_encoder,
    gradient_distance,
    latent_scale,
    load_autoencoder,
    psnr,
    read_images,
    spectral_distance,
    train_autoencoder,
)
from gen.training.dataset import crops

IMAGES = torch.randint(256, (6, 1, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))


def config_of(tmp_path: Path, **changes: object) -> AutoencoderConfig:
    """A config of two steps."""
    fields = {
        "data": tmp_path,
        "output": tmp_path / "out",
        "num_steps": 2,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "num_warmup_steps": 0,
        "image_size": 32,
        "crop_size": 32,
        "architecture": "block",
        "block_size": 4,
        "context_channels": 8,
        "refine_channels": 8,
    }
    return AutoencoderConfig.model_validate({**fields, **changes})


def test_psnr_is_that_of_a_constant_error() -> None:
    target = torch.zeros(2, 1, 8, 8)
    assert psnr(target + 0.2, target) == pytest.approx(20.0, abs=1e-4)  # 10 log10(2^2 / 0.2^2)


def test_the_gradient_distance_sees_slopes_and_no_offsets() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert gradient_distance(ramp + 3, ramp) == pytest.approx(0)
    assert gradient_distance(3 * ramp, ramp) == pytest.approx(2)


def test_the_spectral_distance_sees_missing_detail_and_no_shift() -> None:
    noise = torch.randn(2, 1, 128, 128, generator=torch.manual_seed(0))
    other = torch.randn(2, 1, 128, 128, generator=torch.manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    assert spectral_distance(noise, noise) == 0
    assert spectral_distance(blurred, noise) > spectral_distance(other, noise)
    # a tenth of the amplitude is a hundredth of the power, above a floor of a twentieth
    expected = math.log(1.05 / 0.06)
    assert spectral_distance(0.1 * noise, noise) == pytest.approx(expected, abs=0.05)


def test_terms_are_balanced_by_their_slopes() -> None:
    image = torch.zeros(1, 1, 4, 4, requires_grad=True)
    assert balance(6 * image.sum(), -2 * image.sum(), image) == pytest.approx(3)


def test_crops_are_parts_of_the_images_and_the_generators() -> None:
    picked = crops(IMAGES, 16, 5, torch.Generator().manual_seed(3))
    again = crops(IMAGES, 16, 5, torch.Generator().manual_seed(3))
    assert torch.equal(picked, again)
    windows = IMAGES.unfold(2, 16, 1).unfold(3, 16, 1).reshape(-1, 16, 16)
    for crop in ((picked[:, 0] + 1) * 127.5).round().to(torch.uint8):
        assert (windows == crop).all(dim=(1, 2)).any()


def test_scaled_latents_have_unit_deviation(tmp_path: Path) -> None:
    vae = build(config_of(tmp_path), IMAGES).requires_grad_(False)
    scale = latent_scale(vae, IMAGES, torch.device("cpu"))
    latents = vae.encode(IMAGES.float() / 127.5 - 1).latent_dist.mean
    assert (latents * scale).std() == pytest.approx(1, rel=1e-3)


def test_the_finished_folder_holds_its_scale_and_loads(radiographs: Path, tmp_path: Path) -> None:
    folder = train_autoencoder(config_of(tmp_path, data=radiographs), lambda _: None)
    vae = load_autoencoder(folder)
    assert isinstance(vae, BlockAutoencoder)
    assert vae.config.scaling_factor == pytest.approx(1, rel=0.5)
    assert (tmp_path / "out" / "evaluation.json").exists()


def test_training_the_decoder_keeps_the_latents(radiographs: Path, tmp_path: Path) -> None:
    first = train_autoencoder(config_of(tmp_path, data=radiographs), lambda _: None)
    second = train_autoencoder(
        config_of(
            tmp_path, data=radiographs, output=tmp_path / "more", base_model=first, train="decoder",
            adversarial_weight=0.1, learning_rate=0.05,
        ),
        lambda _: None,
    )  # fmt: skip
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    old, new = load_autoencoder(first), load_autoencoder(second)
    latents = old.encode(image).latent_dist.mean
    assert torch.allclose(latents, new.encode(image).latent_dist.mean)
    assert not torch.allclose(old.decode(latents).sample, new.decode(latents).sample, atol=1e-4)
    assert old.config.scaling_factor == new.config.scaling_factor


def test_a_decoder_needs_an_encoder_to_decode_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="base_model is missing"):
        build(config_of(tmp_path, architecture="kl", train="decoder"), IMAGES)


def test_a_linear_code_needs_no_training(radiographs: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path, data=radiographs, train="decoder", linear_code="mean", latent_channels=1
    )
    before = build(config, read_images(config, "train"))
    assert isinstance(before, BlockAutoencoder)
    after = load_autoencoder(train_autoencoder(config, lambda _: None))
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    latents = after.encode(image).latent_dist.mean
    assert torch.allclose(latents, before.encode(image).latent_dist.mean, atol=1e-5)
    assert after.config.scaling_factor == pytest.approx(1, rel=0.5)
    assert not torch.allclose(before.decode(latents).sample, after.decode(latents).sample)


def test_it_starts_to_decode_through_a_finer_one(radiographs: Path, tmp_path: Path) -> None:
    linear = {"data": radiographs, "train": "decoder", "linear_code": "mean", "latent_channels": 1}
    finer = train_autoencoder(config_of(tmp_path, **linear), lambda _: None)
    wanted = load_autoencoder(finer).state_dict()
    changes = {**linear, "output": tmp_path / "coarse", "finer": finer, "block_size": 8}
    before = build(config_of(tmp_path, **changes), IMAGES)
    assert all(torch.equal(before.detailer.state_dict()[name], wanted[name]) for name in wanted)
    after = load_autoencoder(train_autoencoder(config_of(tmp_path, **changes), lambda _: None))
    moved = {
        name.split(".")[0]
        for name, value in after.detailer.state_dict().items()
        if not torch.equal(value, wanted[name])
    }
    assert moved == {"decode_context", "refine"}  # its code stays


def test_a_kl_autoencoder_freezes_alike(tmp_path: Path) -> None:
    vae = build(config_of(tmp_path, architecture="kl", block_out_channels=(16, 16)), IMAGES)
    freeze_encoder(vae)
    learning = {name.split(".")[0] for name, p in vae.named_parameters() if p.requires_grad}
    assert learning == {"decoder", "post_quant_conv"}
