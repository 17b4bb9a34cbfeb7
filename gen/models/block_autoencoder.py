"""An autoencoder with a closed-form encoder: whitened principal components of image blocks.

Radiographs are smooth, so the best linear code of a 16x16 block (the Karhunen-Loeve transform)
already reconstructs them as well as a small convolutional autoencoder trained for an hour. The
encoder is that code, whitened: latents of unit variance, fixed for ever. What is learned is the
decoder's refinement, which removes block edges and restores detail, and may be trained again
without touching any diffusion model that lives in these latents.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a SiLU, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.conv_out(F.silu(self.conv_in(F.silu(self.norm(x)))))


class BlockAutoencoder(ModelMixin, ConfigMixin):
    """Images (N, 1, H, W) in [-1, 1] <-> latents (N, latent_channels, H/block, W/block).

    It has the `encode`/`decode` interface of diffusers' AutoencoderKL; the posterior has no
    variance. `fit` sets the code from training blocks before anything else.
    """

    @register_to_config
    def __init__(
        self,
        block_size: int = 16,
        latent_channels: int = 24,
        in_channels: int = 1,
        out_channels: int = 1,
        refine_channels: int = 64,
        num_refine_blocks: int = 4,
        shuffle: int = 4,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1, 1),
        scaling_factor: float = 1.0,
        sample_size: int = 256,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(block_size**2))
        self.register_buffer("basis", torch.eye(latent_channels, block_size**2))
        self.register_buffer("deviation", torch.ones(latent_channels))
        bands = shuffle**2
        self.refine = nn.Sequential(
            nn.Conv2d(bands, refine_channels, 3, padding=1),
            *(ResidualBlock(refine_channels) for _ in range(num_refine_blocks)),
            nn.Conv2d(refine_channels, bands, 3, padding=1),
        )
        nn.init.zeros_(self.refine[-1].weight)
        nn.init.zeros_(self.refine[-1].bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set mean, basis and deviations from images (N, 1, H, W) in [-1, 1]."""
        size = self.config.block_size
        blocks = F.pixel_unshuffle(images, size).permute(0, 2, 3, 1).reshape(-1, size**2).double()
        mean = blocks.mean(0)
        centred = blocks - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = self.config.latent_channels
        self.mean.copy_(mean)
        self.basis.copy_(vectors[:, -kept:].flip(1).T)
        self.deviation.copy_(values[-kept:].flip(0).sqrt())

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The code of images (N, 1, H, W) in [-1, 1], as a posterior without variance."""
        blocks = F.pixel_unshuffle(x, self.config.block_size) - self.mean[:, None, None]
        latents = torch.einsum("nphw,kp->nkhw", blocks, self.basis / self.deviation[:, None])
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        posterior = DiagonalGaussianDistribution(moments, deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def linear_decode(self, z: Tensor) -> Tensor:
        """The least-squares image of latents, before refinement."""
        blocks = torch.einsum("nkhw,kp->nphw", z, self.basis * self.deviation[:, None])
        return F.pixel_shuffle(blocks + self.mean[:, None, None], self.config.block_size)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        """Images (N, 1, H, W), about [-1, 1], of latents."""
        image = self.linear_decode(z)
        bands = F.pixel_unshuffle(image, self.config.shuffle)
        image = image + F.pixel_shuffle(self.refine(bands), self.config.shuffle)
        return DecoderOutput(sample=image) if return_dict else (image,)
