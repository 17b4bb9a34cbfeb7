"""Train an autoencoder (Rombach et al. 2022, section 3.1) on radiographs or stained tissue.

Loss: L1 + gradient L1 + weighted KL, and what puts back the detail that distances blur away: the
radial power spectrum, and from `adversarial_after` on a hinge patch-GAN term, held at a set
fraction of the others' pull on the image. The latent scale 1/std is measured on the training set at
the end and stored in the model's config.

With `train: decoder` the encoder and so the latents stay as they are in `base_model`: diffusion
models that were trained in them go on to work.
"""

import copy
import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from gen.errors import InvalidInput
from gen.models.block_autoencoder import BlockAutoencoder, LinearCode
from gen.training.dataset import crops, read_chest_xrays, to_unit
from gen.training.loop import LoopConfig, Report, Trained, descend, make_optimizer, run_loop
from gen.training.pictures import save_grid
from gen.training.tissue import TissueConfig, read_tiles, turn


class AutoencoderConfig(LoopConfig):
    """Config of `medphantom train autoencoder`."""

    architecture: Literal["kl", "block"] = Field(
        "kl", description="kl: diffusers' AutoencoderKL; block: gen.models.block_autoencoder"
    )
    base_model: Path | None = Field(None, description="Autoencoder folder to start from")
    train: Literal["all", "decoder"] = "all"
    tissue: TissueConfig | None = Field(
        None, description="Colour tiles of stained tissue; null is grey chest X-rays"
    )
    image_size: int = Field(256, ge=32)
    crop_size: int = Field(128, ge=32, description="Side of the random crops trained on")
    block_out_channels: tuple[int, ...] = (32, 64, 128, 128)
    layers_per_block: int = 1
    latent_channels: int = Field(4, ge=1)
    block_size: int = Field(16, ge=2)
    shuffle: int = Field(4, ge=1, description="Pixels a side of what the refining network answers")
    linear_code: LinearCode = Field(
        "transform", description="mean: the code is the mean colour of blocks, see the model"
    )
    posterior_std: float = Field(
        0.1, gt=0, description="Noise on codes of blocks: what the decoder learns to put up with"
    )
    finer: Path | None = Field(
        None, description="Autoencoder folder of smaller blocks, to start decoding through"
    )
    context_channels: int = Field(192, ge=8, multiple_of=8)
    num_context_blocks: int = Field(2, ge=1)
    refine_channels: int = Field(48, ge=8, multiple_of=8)
    num_refine_blocks: int = Field(3, ge=1)
    grain: bool = Field(True, description="Fixed noise beside the decoder's image; off for tiles")
    gradient_weight: float = Field(0.5, ge=0)
    spectral_weight: float = Field(0.0, ge=0)
    kl_weight: float = Field(1e-6, ge=0)
    adversarial_weight: float = Field(
        0.0, ge=0, description="Pull of the critic over that of all other terms; 0.3 is a lot"
    )
    adversarial_after: int = Field(0, ge=0, description="First step with the adversarial term")
    critic_rate_factor: float = Field(
        5.0,
        gt=0,
        description="The critic's learning rate over the autoencoder's (Heusel et al. 2017)",
    )


Autoencoder: TypeAlias = AutoencoderKL | BlockAutoencoder


def load_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder in `folder`, of whichever of the two classes it is."""
    kind = AutoencoderKL.load_config(folder)["_class_name"]
    architecture = BlockAutoencoder if kind == "BlockAutoencoder" else AutoencoderKL
    loaded: Autoencoder = architecture.from_pretrained(folder, use_safetensors=True)
    return loaded


def vae_factor(vae: Any) -> int:
    """Pixels per latent along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def build(config: AutoencoderConfig, images: Tensor) -> Autoencoder:
    """`base_model`, or a new autoencoder; a block code is fitted to the uint8 `images`.

    Raises:
        InvalidInput: only a decoder is to be trained, but there is no encoder to keep: neither in
            `base_model` nor as the linear code of blocks.
    """
    if config.base_model is not None:
        vae = load_autoencoder(config.base_model)
        if config.train == "decoder":
            freeze_encoder(vae)
        return vae
    if config.architecture == "block":
        finer = None if config.finer is None else load_autoencoder(config.finer)
        vae = BlockAutoencoder(
            block_size=config.block_size,
            shuffle=config.shuffle,
            linear_code=config.linear_code,
            learned_encoder=config.train == "all",
            latent_channels=config.latent_channels,
            posterior_std=config.posterior_std,
            context_channels=config.context_channels,
            num_context_blocks=config.num_context_blocks,
            refine_channels=config.refine_channels,
            num_refine_blocks=config.num_refine_blocks,
            in_channels=images.shape[1],
            out_channels=images.shape[1],
            block_out_channels=(1,) * config.block_size.bit_length(),
            grain=config.grain,
            sample_size=config.image_size,
            finer=None if finer is None else _settings(finer),
        )
        if finer is not None and vae.detailer is not None:
            vae.detailer.load_state_dict(finer.state_dict())
        vae.fit(to_unit(images[:: max(1, len(images) // 1000)]))
        if config.train == "decoder":
            freeze_encoder(vae)
        return vae
    if config.train == "decoder":
        raise InvalidInput(
            "train is 'decoder', but base_model is missing; name the autoencoder's folder, or "
            "choose architecture: block, whose linear code needs no training"
        )
    channels = config.block_out_channels
    return AutoencoderKL(
        in_channels=images.shape[1],
        out_channels=images.shape[1],
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=config.image_size,
        scaling_factor=1.0,
    )


def _settings(vae: Autoencoder) -> dict[str, Any]:
    """What another of its kind is made with."""
    return {name: value for name, value in vae.config.items() if not name.startswith("_")}


def freeze_encoder(vae: Autoencoder) -> None:
    """Let only what decodes learn."""
    vae.requires_grad_(False)
    names = ("decode_context", "refine", "decoder", "post_quant_conv")
    for part in (vae, getattr(vae, "detailer", None)):
        for module in (getattr(part, name, None) for name in names):
            if module is not None:
                module.requires_grad_(True)


class WithDetail(nn.Module):
    """An image (N, C, H, W) and beside it, amplified, what a blur takes away from it.

    Detail has a hundredth of an image's amplitude: a critic that is not shown it does not see it.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(N, 2C, H, W)."""
        return torch.cat([image, 16 * (image - F.avg_pool2d(image, 3, 1, 1))], dim=1)


def patch_discriminator(channels: int, width: int = 48) -> nn.Sequential:
    """A PatchGAN (Isola et al. 2017) of three halvings: images (N, C, H, W) to logits a patch.

    Weights are of spectral norm 1 (Miyato et al. 2018): a critic that is always right, and steep,
    teaches nothing.
    """
    layers: list[nn.Module] = [WithDetail()]
    channels = 2 * channels
    for factor in (1, 2, 4):
        convolution = nn.Conv2d(channels, width * factor, 4, 2, 1)
        layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        channels = width * factor
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 3, 1, 1)))


def gradient_distance(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of finite differences along rows and columns."""
    difference = image - target
    along_rows = difference.diff(dim=-1).abs().mean()
    return along_rows + difference.diff(dim=-2).abs().mean()


def spectral_distance(image: Tensor, target: Tensor, side: int = 32) -> Tensor:
    """Mean absolute log ratio of the radial power spectra (Durall et al. 2020, equation 9).

    Spectra are those of windows of `side` pixels, half overlapping, under a Hann window. Power says
    how much detail of each size there is, not what: a blurred image cannot satisfy it, an invented
    one can. 5 % of the batch's mean power keeps empty windows finite.
    """
    window = torch.hann_window(side, device=image.device)
    frequencies = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    band = (torch.hypot(frequencies[0][:, None], frequencies[1]) * side).round().long()
    band = band.clamp_max(side // 2).flatten().to(image.device)
    counts = torch.bincount(band)

    def power(images: Tensor) -> Tensor:
        tiles = images.unfold(2, side, side // 2).unfold(3, side, side // 2)
        tiles = tiles - tiles.mean(dim=(-2, -1), keepdim=True)
        squares = torch.fft.rfft2(tiles * window[:, None] * window[None]).abs().square()
        flat = squares.flatten(0, 3).flatten(1)
        sums = flat.new_zeros(len(flat), len(counts)).index_add(1, band, flat)
        return sums[:, 1:] / counts[1:]

    wanted = power(target)
    floor = 0.05 * wanted.mean(0) + 1e-8
    return ((power(image) + floor) / (wanted + floor)).log().abs().mean()


def balance(loss: Tensor, other: Tensor, image: Tensor) -> Tensor:
    """How much steeper `loss` is in the image than `other` (Esser et al. 2021, equation 7)."""
    (steep,) = torch.autograd.grad(loss, image, retain_graph=True)
    (other_steep,) = torch.autograd.grad(other, image, retain_graph=True)
    return (steep.norm() / (other_steep.norm() + 1e-6)).detach()


@torch.no_grad()
def latent_scale(vae: Autoencoder, images: Tensor, device: torch.device) -> float:
    """1 / standard deviation of the latents' means over at most 256 images."""
    chosen = images[:: max(1, len(images) // 256)]
    latents = [vae.encode(to_unit(batch).to(device)).latent_dist.mean for batch in chosen.split(16)]
    return 1 / torch.cat(latents).std().item()


@torch.no_grad()
def reconstruct(vae: Autoencoder, images: Tensor, device: torch.device) -> Tensor:
    """Images (N, C, H, W) uint8 through the latents' means and back, in [-1, 1]."""
    batches = (to_unit(batch).to(device) for batch in images.split(16))
    return torch.cat(
        [vae.decode(vae.encode(batch).latent_dist.mean).sample.cpu() for batch in batches]
    ).clamp(-1, 1)


def psnr(image: Tensor, target: Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB; both (N, C, H, W) in [-1, 1]."""
    mse = (image - target).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / mse.clamp_min(1e-10))).mean())


def train_autoencoder(config: AutoencoderConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished model."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    images = read_images(config, "train")
    vae = build(config, images).to(device)
    ema = copy.deepcopy(vae).eval().requires_grad_(False)
    generator_part = Trained(vae, make_optimizer(vae, config), ema)
    critic = patch_discriminator(images.shape[1]).to(device)
    critic_part = Trained(
        critic, make_optimizer(critic, config, config.critic_rate_factor, beta1=0.5)
    )
    for part in (generator_part, critic_part):
        part.module, part.optimizer = accelerator.prepare(part.module, part.optimizer)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        target = crops(images, config.crop_size, config.batch_size, generator)
        if config.tissue:
            target = turn(target, generator)
        target = target.to(device)
        return _step(config, accelerator, generator_part, critic_part, target, number, generator)

    held_out = read_images(config, "val")
    parts = {"vae": generator_part}
    if config.adversarial_weight:
        parts["critic"] = critic_part
    run_loop(
        config,
        accelerator,
        parts,
        step,
        lambda path: _draw(ema, held_out, device, path),
        report,
    )
    return _finish(config, ema, images, held_out, device)


def read_images(config: AutoencoderConfig, split: Literal["train", "val"]) -> Tensor:
    """Images (N, C, S, S) uint8 of a split."""
    if config.tissue is not None:
        return read_tiles(config.data, split, config.image_size, config.tissue).images
    return read_chest_xrays(config.data, split, config.image_size).images


def _step(
    config: AutoencoderConfig,
    accelerator: Accelerator,
    vae: Trained,
    critic: Trained,
    target: Tensor,
    number: int,
    generator: torch.Generator,
) -> dict[str, float]:
    adversarial = config.adversarial_weight > 0 and number >= config.adversarial_after
    with accelerator.autocast():
        posterior = accelerator.unwrap_model(vae.module).encode(target).latent_dist
        image = (
            accelerator.unwrap_model(vae.module).decode(posterior.sample(generator)).sample.float()
        )
        distance = F.l1_loss(image, target)
        gradient = gradient_distance(image, target)
        kl = posterior.kl().mean()
        loss = distance + config.gradient_weight * gradient + config.kl_weight * kl
        losses = {"l1": distance.item(), "gradient": gradient.item(), "kl": kl.item()}
        if config.spectral_weight:
            spectral = spectral_distance(image, target)
            loss = loss + config.spectral_weight * spectral
            losses["spectral"] = spectral.item()
        if adversarial:
            realism = critic.module(image).mean()
            loss = loss - config.adversarial_weight * balance(loss, realism, image) * realism
    descend(accelerator, vae, loss, config, number)
    if adversarial:
        critic.optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            real, fake = critic.module(target), critic.module(image.detach())
            hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        descend(accelerator, critic, hinge, config, number)
        losses["critic"] = hinge.item()
    return losses


def _draw(vae: Autoencoder, held_out: Tensor, device: torch.device, path: Path) -> None:
    """Eight held-out images beside their reconstructions."""
    images = held_out[:: max(1, len(held_out) // 8)][:8]
    pairs = torch.stack([to_unit(images), reconstruct(vae, images, device)], dim=1)
    save_grid(pairs.flatten(0, 1), path)


def _finish(
    config: AutoencoderConfig,
    vae: Autoencoder,
    images: Tensor,
    held_out: Tensor,
    device: torch.device,
) -> Path:
    scale = vae.config.scaling_factor
    if config.train == "all" or config.base_model is None:
        scale = latent_scale(vae, images, device)
    vae.register_to_config(scaling_factor=scale)
    folder = config.output / "vae"
    vae.save_pretrained(folder)
    figures = {
        "scaling_factor": scale,
        "psnr_val_db": psnr(reconstruct(vae, held_out, device), to_unit(held_out)),
    }
    (config.output / "evaluation.json").write_text(json.dumps(figures, indent=1))
    return folder
