"""Grey pictures through a text-to-image model: into its latents, painted there, and back."""

import torch
from torch import Tensor

from gen.inpainting import shown
from gen.types import Component, ModelCall, Predict, Process
from pipelines.text_to_cxr import TextToCXRPipeline


def picture_networks(drawn: TextToCXRPipeline) -> dict[str, Component]:
    """What the model's calls name, with "encoder" for pictures."""
    return {
        **drawn.networks,
        "encoder": lambda pictures: drawn.vae.encode(pictures).latent_dist.mean,
    }


def encode_pictures(drawn: TextToCXRPipeline, pictures: Tensor) -> Process[Tensor]:
    """Scaled latents (N, C, h, w) of pictures (N, 1, S, S) in [-1, 1]."""
    pictures = pictures.to(drawn.vae.dtype).expand(-1, drawn.vae.config.in_channels, -1, -1)
    return (yield ModelCall("encoder", (pictures,))) * drawn.vae.config.scaling_factor


def decode_pictures(drawn: TextToCXRPipeline, latents: Tensor) -> Process[Tensor]:
    """Pictures (N, 1, S, S) in [-1, 1] of scaled latents; colours become their mean."""
    images = yield from drawn.decode(latents)
    return images.mean(1, keepdim=True).float() * 2 - 1


def is_shown_what_stays(drawn: TextToCXRPipeline) -> bool:
    """Whether the U-Net has channels for what is kept, as models trained for inpainting do."""
    takes, answers = drawn.unet.config.in_channels, drawn.unet.config.out_channels
    return bool(takes != answers)


def painter(drawn: TextToCXRPipeline, predict: Predict, known: Tensor, mask: Tensor) -> Predict:
    """The network that paints known latents (N, C, h, w) under a mask (N, 1, h, w)."""
    return shown(predict, known, mask) if is_shown_what_stays(drawn) else predict


def paint_all(drawn: TextToCXRPipeline, predict: Predict) -> Predict:
    """The network that paints everything."""

    def painting(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        everything = torch.ones_like(latents[:, :1])
        return (yield from painter(drawn, predict, latents, everything)(latents, timestep))

    return painting
