"""Train an image encoder without labels by VICReg (Bardes, Ponce & LeCun 2022).

Two views of an image shall have the same features (invariance), each feature shall vary over a
batch (variance) and features shall not repeat each other (covariance, equations 1 to 6). Views
differ in crop, angle, contrast and noise; of radiographs never by a flip, since the heart lies
left; never by blur, since the encoder is to see missing detail, nor by hue, since a stain is part
of what tissue looks like.
"""

import copy
import json
import math
from pathlib import Path

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gen.models.cxr_encoder import CXREncoder
from gen.training.dataset import crops, read_chest_xrays
from gen.training.loop import LoopConfig, Report, Trained, descend, make_optimizer, run_loop
from gen.training.pictures import save_grid
from gen.training.tissue import TissueConfig, read_tiles, turn


class SSLEncoderConfig(LoopConfig):
    """Config of `medphantom train ssl-encoder`."""

    image_size: int = Field(128, ge=32)
    tissue: TissueConfig | None = Field(
        None, description="Colour tiles of stained tissue; null is grey chest X-rays"
    )
    tile_size: int = Field(256, ge=32, description="Side of the tiles that tissue is cropped from")
    widths: tuple[int, ...] = (24, 48, 96, 160, 192)
    feature_dim: int = Field(128, ge=8)
    projection_dim: int = Field(512, ge=8)
    min_crop: float = Field(0.5, gt=0, le=1, description="Least area of a view")
    max_angle: float = Field(8.0, ge=0, description="Largest rotation in degrees")
    contrast: float = Field(0.3, ge=0, lt=1, description="Largest change of gain and of gamma")
    noise: float = Field(0.05, ge=0, description="Standard deviation of added noise")
    invariance_weight: float = Field(25.0, ge=0)
    variance_weight: float = Field(25.0, ge=0)
    covariance_weight: float = Field(1.0, ge=0)


def draw_view(images: Tensor, config: SSLEncoderConfig, generator: torch.Generator) -> Tensor:
    """A random view of each image (N, C, S, S) in [-1, 1]."""
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale = uniform(config.min_crop, 1).sqrt()
    angle = uniform(-config.max_angle, config.max_angle) * math.pi / 180
    shift = torch.stack([uniform(-1, 1), uniform(-1, 1)], 1) * (1 - scale)[:, None]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    affine = torch.cat([turn * scale.view(-1, 1, 1), shift[:, :, None]], dim=2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    view = F.grid_sample(images, grid.to(images), padding_mode="reflection", align_corners=False)
    gamma = torch.exp(uniform(-config.contrast, config.contrast)).view(-1, 1, 1, 1).to(images)
    gain = uniform(1 - config.contrast, 1 + config.contrast).view(-1, 1, 1, 1).to(images)
    view = ((view / 2 + 0.5).clamp(1e-4, 1) ** gamma * 2 - 1) * gain
    noise = torch.randn(view.shape, generator=generator).to(view)
    return view + config.noise * uniform(0, 1).view(-1, 1, 1, 1).to(images) * noise


def vicreg_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance of two batches of projections (N, D)."""
    invariance = F.mse_loss(first, second)
    variance = sum(
        (F.relu(1 - (each.var(dim=0) + 1e-4).sqrt()).mean() / 2 for each in (first, second)),
        start=first.new_zeros(()),
    )
    covariance = sum((_off_diagonal(each) for each in (first, second)), start=first.new_zeros(()))
    return invariance, variance, covariance


def _off_diagonal(projections: Tensor) -> Tensor:
    """Sum of squared covariances between different dimensions, over the dimension."""
    covariance = torch.cov(projections.T)
    squares = covariance.square()
    return (squares.sum() - squares.diagonal().sum()) / projections.shape[1]


def train_ssl_encoder(config: SSLEncoderConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished encoder."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    data = read_images(config)
    encoder = CXREncoder(config.image_size, config.widths, config.feature_dim, data.shape[1])
    projector = nn.Sequential(
        nn.Linear(config.feature_dim, config.projection_dim),
        nn.BatchNorm1d(config.projection_dim),
        nn.ReLU(),
        nn.Linear(config.projection_dim, config.projection_dim),
    )
    parts = nn.ModuleDict({"encoder": encoder, "projector": projector}).to(device)
    average = copy.deepcopy(parts).eval().requires_grad_(False)
    trained = Trained(parts, make_optimizer(parts, config), average)
    trained.module, trained.optimizer = accelerator.prepare(parts, trained.optimizer)

    def views(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = crops(data, config.image_size, config.batch_size, generator)
        first, second = images, images
        if config.tissue is not None:
            first, second = turn(images, generator), turn(images, generator)
        first, second = first.to(device), second.to(device)
        return draw_view(first, config, generator), draw_view(second, config, generator)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        with accelerator.autocast():
            both = torch.cat(views(generator))
            projections = projector(encoder(both)).float()
            invariance, variance, covariance = vicreg_terms(*projections.chunk(2))
            loss = (
                config.invariance_weight * invariance
                + config.variance_weight * variance
                + config.covariance_weight * covariance
            )
        descend(accelerator, trained, loss, config, number)
        return {
            "invariance": invariance.item(),
            "variance": variance.item(),
            "covariance": covariance.item(),
        }

    def sample(path: Path) -> None:
        first, second = views(torch.Generator().manual_seed(config.seed))
        save_grid(torch.stack([first[:8], second[:8]], 1).flatten(0, 1).cpu(), path)

    run_loop(config, accelerator, {"model": trained}, step, sample, report)
    return _finish(config, average["encoder"])


def read_images(config: SSLEncoderConfig) -> Tensor:
    """Training images (N, C, S, S) uint8, of `image_size` or larger."""
    if config.tissue is not None:
        return read_tiles(config.data, "train", config.tile_size, config.tissue).images
    return read_chest_xrays(config.data, "train", config.image_size).images


def _finish(config: SSLEncoderConfig, encoder: nn.Module) -> Path:
    folder = config.output / "model"
    encoder.half().save_pretrained(folder)  # type: ignore[operator]
    figures = {"images_seen": config.num_steps * config.batch_size}
    (config.output / "evaluation.json").write_text(json.dumps(figures))
    return folder
