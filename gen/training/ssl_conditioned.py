"""Train latent diffusion of patches from the embedding of a self-supervised encoder.

Graikos et al. 2024 (arXiv 2312.07330, section 3.2), with the magnification as a second condition
(ZoomLDM, arXiv 2411.16969). A patch is its own condition: no label is needed.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DPMSolverMultistepScheduler
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gen.denoising import denoise, draw_noise, fresh_scheduler, make_generators
from gen.encoders.loading import load_encoder
from gen.engine import run
from gen.guidance.classifier_free import classifier_free
from gen.models.ssl_projection import SSLProjection
from gen.store.loading import load_components
from gen.store.saving import save_components
from gen.training.autoencoder import load_autoencoder, vae_factor
from gen.training.dataset import crop
from gen.training.diffusion import DiffusionConfig, diffusion_loss, noise_schedule
from gen.training.first_card import training_data, write_first_card
from gen.training.loop import Report, Trained, descend, make_optimizer, run_loop
from gen.training.pictures import save_grid
from gen.training.tissue import TilesConfig, read_tiles, row_weights, turn
from gen.training.unet import UNetConfig, build_unet
from gen.types import Components, ModelCall, Process

NUM_PREVIEWS = 8


class SSLConditionedConfig(DiffusionConfig, UNetConfig, TilesConfig):
    """Config of `medphantom train ssl-conditioned`."""

    autoencoder: Path = Field(description="Folder that `medphantom train autoencoder` wrote")
    encoder: str = Field(description="Self-supervised encoder: id or folder")
    base_model: Path | None = Field(
        None, description="Model of the same autoencoder and encoder to go on from"
    )
    patch_size: int = Field(128, ge=32, description="Side of a patch in pixels")
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    embedding_noise: float = Field(
        0.0, ge=0, description="Deviation, a component, added to embeddings: against memorising"
    )
    cross_attention_dim: int = Field(128, ge=8)
    num_tokens: int = Field(4, ge=1, description="Tokens made of one embedding")


@dataclass(frozen=True)
class Networks:
    """What the patch model is made of; `encoder` gives unit-length embeddings of images."""

    vae: Any
    unet: Any
    projection: SSLProjection
    scheduler: DPMSolverMultistepScheduler
    encoder: Any


@dataclass(frozen=True)
class Batch:
    """`latents` (N, c, h, w), `embeddings` (N, D) and `microns_per_pixel` (N,) of `patches`."""

    patches: Tensor
    latents: Tensor
    embeddings: Tensor
    microns_per_pixel: Tensor


def build_networks(config: SSLConditionedConfig, device: torch.device) -> Networks:
    """U-Net and projection, new or of `base_model`, around networks that stay as they are."""
    vae = load_autoencoder(config.autoencoder).requires_grad_(False)
    encoder = load_encoder(config.encoder, str(device))
    if config.base_model is not None:
        base = load_components(config.base_model)
        unet, projection = base["unet"].train(), base["projection"].train()
    else:
        size = config.patch_size // vae_factor(vae)
        unet = build_unet(config, vae.config.latent_channels, size, config.cross_attention_dim)
        empty = torch.zeros(1, vae.config.in_channels, config.patch_size, config.patch_size)
        dim = encoder.embed(empty).shape[1]
        projection = SSLProjection(dim, config.cross_attention_dim, config.num_tokens)
    for module in (vae, unet, projection):
        module.to(device)
    unet.to(memory_format=torch.channels_last)  # convolutions are a fifth faster so
    scheduler = noise_schedule(config, stochastic=True)
    return Networks(vae, unet, projection, scheduler, encoder)


@torch.no_grad()
def describe(networks: Networks, patches: Tensor, microns_per_pixel: Tensor) -> Batch:
    """Latents and embeddings of patches (N, C, S, S) in [-1, 1], on the U-Net's device."""
    device = networks.unet.device
    patches = patches.to(device)
    latents = networks.vae.encode(patches).latent_dist.mean * networks.vae.config.scaling_factor
    embeddings = networks.encoder.embed(patches).to(device)
    return Batch(patches, latents, embeddings, microns_per_pixel.to(device))


def disturb(embeddings: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Unit-length embeddings (N, D) moved a little on their sphere."""
    noise = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    return F.normalize(embeddings + deviation * noise, dim=-1)


def training_loss(
    networks: Networks, config: SSLConditionedConfig, batch: Batch, generator: torch.Generator
) -> Tensor:
    """`diffusion_loss` under the embeddings, of which some are replaced by the null."""
    embeddings = disturb(batch.embeddings, config.embedding_noise, generator)
    dropped = torch.rand(len(embeddings), 1, generator=generator) < config.embedding_dropout
    null = networks.projection.null_embedding
    embeddings = torch.where(dropped.to(embeddings.device), null, embeddings)
    context = networks.projection(embeddings, batch.microns_per_pixel)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        output: Tensor = networks.unet(noisy, timesteps, context).sample
        return output

    return diffusion_loss(
        networks.scheduler, predict, batch.latents, config.min_snr_gamma, generator
    )


def preview(networks: Networks, batch: Batch) -> Process[Tensor]:
    """New patches (N, C, S, S) in about [-1, 1] for a batch's embeddings: 20 steps, guidance 2."""
    device = networks.unet.device
    with torch.no_grad():
        context = networks.projection(batch.embeddings, batch.microns_per_pixel)
        null = networks.projection.null(batch.microns_per_pixel)
    generators = make_generators(range(len(batch.latents)))
    scheduler = fresh_scheduler(networks.scheduler, 20)
    latents = draw_noise(batch.latents.shape[1:], generators).to(device)

    def predict(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
        times = timestep.to(device).expand(len(latents))
        return (yield ModelCall("unet", (latents, times, condition)))

    guided = classifier_free(predict, context, null, 2.0)
    noise = latents * scheduler.init_noise_sigma
    latents = yield from denoise(noise, scheduler, guided, generators)
    return (yield ModelCall("decoder", (latents / networks.vae.config.scaling_factor,)))


def draw_preview(networks: Networks, batch: Batch, path: Path) -> None:
    """Save pairs: a real patch, and one made from its embedding."""
    components: Components = {
        "unet": lambda x, t, c: networks.unet(x, t, c).sample,
        "decoder": lambda z: networks.vae.decode(z).sample,
    }
    made = run(preview(networks, batch), components)
    save_grid(torch.stack([batch.patches, made], 1).flatten(0, 1).cpu(), path, 4)


def train_ssl_conditioned(config: SSLConditionedConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished model."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    tiles = read_tiles(config.data, "train", config.tile_size, config.tissue)
    networks = build_networks(config, accelerator.device)
    parts = nn.ModuleDict({"unet": networks.unet, "projection": networks.projection})
    average = copy.deepcopy(parts).eval().requires_grad_(False)
    trained = Trained(parts, make_optimizer(parts, config), average)
    trained.module, trained.optimizer = accelerator.prepare(parts, trained.optimizer)
    averaged = with_average(networks, dict(average.items()))
    weights = row_weights(tiles.microns_per_pixel, config.balance)

    def draw(count: int, generator: torch.Generator) -> Batch:
        rows = torch.multinomial(weights, count, True, generator=generator)
        patches = turn(crop(tiles.images, rows, config.patch_size, generator), generator)
        return describe(networks, patches, tiles.microns_per_pixel[rows])

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        batch = draw(config.batch_size, generator)
        with accelerator.autocast():
            loss = training_loss(networks, config, batch, generator)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    def sample(path: Path) -> None:
        batch = draw(NUM_PREVIEWS, torch.Generator().manual_seed(config.seed))
        draw_preview(averaged, batch, path)

    run_loop(config, accelerator, {"model": trained}, step, sample, report)
    folder = save_model(averaged, config)
    write_first_card(
        folder, config, config.patch_size, training_data(tiles.fields, config.data.name),
        config.base_model, task="embedding-to-image", modality="SM",
    )  # fmt: skip
    return folder


def with_average(networks: Networks, average: Mapping[str, Any]) -> Networks:
    """The same model with the averaged weights in the place of the trained ones."""
    unet, projection = average["unet"], average["projection"]
    return Networks(networks.vae, unet, projection, networks.scheduler, networks.encoder)


def save_model(networks: Networks, config: SSLConditionedConfig) -> Path:
    """Write the diffusers folder, which names its encoder."""
    folder = config.output / "model"
    components = {
        "vae": networks.vae.half(),
        "unet": networks.unet.half(),
        "projection": networks.projection.half(),
        "scheduler": networks.scheduler,
    }
    save_components(folder, components, "LargeImagePipeline", {"encoder": config.encoder})
    return folder
