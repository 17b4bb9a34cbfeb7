"""A text-to-image model while it learns from captioned radiographs, and what it is shown."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from gen.data.captions import Labels, caption
from gen.store.loading import load_components
from gen.store.saving import save_components
from gen.training.dataset import to_unit
from gen.types import Components, ModelCall, Process


@dataclass(frozen=True)
class Networks:
    """What a text-to-image model is made of."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: DPMSolverMultistepScheduler


def load_networks(model: str) -> Networks:
    """The networks of a folder or id, with the scheduler of our recipes on its noise levels."""
    parts = load_components(model)
    scheduler = DPMSolverMultistepScheduler.from_config(parts["scheduler"].config)
    return Networks(
        parts["vae"], parts["unet"], parts["text_encoder"], parts["tokenizer"], scheduler
    )


def save_networks(networks: Networks, folder: Path) -> None:
    """Write the folder in diffusers layout, in half precision."""
    components = {
        "vae": networks.vae.half(),
        "text_encoder": networks.text_encoder.half(),
        "tokenizer": networks.tokenizer,
        "unet": networks.unet.half(),
        "scheduler": networks.scheduler,
    }
    save_components(folder, components, "TextToCXRPipeline")


def components_of(networks: Networks) -> Components:
    """What processes call the networks by."""
    return {
        "text_encoder": lambda ids: networks.text_encoder(ids).last_hidden_state,
        "unet": lambda x, t, c: networks.unet(x, t, c).sample,
        "decoder": lambda z: networks.vae.decode(z / networks.vae.config.scaling_factor).sample,
    }


def call_unet(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
    """The U-Net's answer at a timestep () under a condition (N, L, D)."""
    times = timestep.to(latents.device).expand(len(latents))
    return (yield ModelCall("unet", (latents, times, condition)))


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, device: torch.device) -> Tensor:
    """Scaled latents (N, C, h, w) of uint8 images (N, 1, H, W), on the CPU."""
    channels = vae.config.in_channels
    batches = [to_unit(batch).expand(-1, channels, -1, -1) for batch in images.split(16)]
    latents = [vae.encode(batch.to(device)).latent_dist.mean.cpu() for batch in batches]
    return torch.cat(latents) * vae.config.scaling_factor


def draw_captions(labels: list[Labels], generator: torch.Generator, dropout: float) -> list[str]:
    """A new phrasing for every image; empty with probability `dropout`."""
    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
    return ["" if rng.random() < dropout else caption(each, rng) for each in labels]


def row_weights(labels: list[Labels], balance: float) -> Tensor:
    """How often each image is drawn: its group's size to the power of -balance.

    Groups are children and adults, with and without a finding.
    """
    groups = [(each.child, each.normal) for each in labels]
    sizes = Counter(groups)
    return torch.tensor([sizes[group] ** -balance for group in groups])
