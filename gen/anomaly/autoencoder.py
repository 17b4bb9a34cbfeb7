"""A convolutional autoencoder of healthy pictures: what its narrow middle cannot say is disease.

Baur et al. 2021 (Autoencoders for unsupervised anomaly segmentation in brain MR images, section 3),
with MONAI's network.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from gen.anomaly.detections import Detections, Detector, residual_map
from gen.errors import InvalidInput
from gen.training.dataset import to_unit
from gen.training.loop import learning_rate_factor, step_generator

CHANNELS = (16, 32, 64, 64, 64, 32)


class AutoencoderConfig(BaseModel):
    """How an autoencoder is built and trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: tuple[int, ...] = Field(
        CHANNELS, description="Of each halving; the last ones are the code"
    )
    num_steps: int = Field(600, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    num_warmup_steps: int = Field(20, ge=0)


def make_autoencoder(config: AutoencoderConfig, side: int) -> nn.Module:
    """A network (N, 1, S, S) -> (N, 1, S, S).

    Raises:
        InvalidInput: the side cannot be halved as often as there are channels.
    """
    from monai.networks.nets import AutoEncoder

    factor = 2 ** len(config.channels)
    if side < factor or side % factor:
        raise InvalidInput(
            f"side is {side}, but must be a multiple of {factor} to be halved for each of the"
            f" channels {config.channels}; give fewer channels"
        )
    network: nn.Module = AutoEncoder(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=config.channels,
        strides=(2,) * len(config.channels),
        # instance norm would take from the code how bright a picture is
        norm="batch",
    )
    return network


def train_autoencoder(
    images: Tensor,
    config: AutoencoderConfig,
    seed: int,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> nn.Module:
    """Learn to repeat healthy pictures, by the mean absolute error.

    Args:
        images: (N, 1, S, S) uint8.
        config: see there.
        seed: of weights and draws.
        device: where it is trained and stays.
        report: told the steps done, and all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_autoencoder(config, images.shape[-1]).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(config.num_steps):
        generator = step_generator(seed, step)
        rows = torch.randint(len(images), (config.batch_size,), generator=generator)
        shown = to_unit(images[rows]).to(device)
        loss = F.l1_loss(network(shown), shown)
        factor = learning_rate_factor(step, config.num_warmup_steps, config.num_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report(step + 1, config.num_steps)
    return network.eval()


def autoencoder_detector(network: Any) -> Detector:
    """The residual of what a trained network repeats."""

    @torch.no_grad()
    def detect(images: Tensor, seeds: Sequence[int]) -> Detections:
        device = next(network.parameters()).device
        healthy = network(images.to(device)).clamp(-1, 1).cpu()
        return Detections(residual_map(images, healthy), healthy, len(images))

    return detect
