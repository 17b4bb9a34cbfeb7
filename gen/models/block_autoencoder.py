"""An autoencoder that starts as the best linear code of image blocks and learns the rest.

Radiographs are smooth: the Karhunen-Loeve transform of 16x16 blocks already reconstructs them as
well as a small convolutional autoencoder trained for an hour. Encoder and decoder are that
transform plus residual networks that see the neighbouring blocks, so that edges between blocks
vanish and detail returns.

The finest grain of an image is noise that no code holds: with `grain`, the decoder has a fixed
noise image beside its own, to shape what it adds from (Karras et al. 2019, section 3.2). It is the
same for every image, so decoding stays a function of the latents; an image that is decoded in tiles
would show it as a pattern.

Stained tissue is not smooth: its best code is of edges, which are nearly white from block to block,
and a diffusion model of them learns little but noise. The code `mean` keeps the mean colours of
blocks alone, a small picture that looks like the large one, and leaves detail to the decoder. With
`finer`, the config of an autoencoder of smaller blocks, the decoder only has to find that one's
code, and its image goes through it.

Coefficient i has a standard deviation proportional to sqrt(s_i), s_i being its deviation in the
image: under white noise of fixed power this is the linear code of least squared error (Lee and
Petersen 1976), and it lets a diffusion model meet coarse structure before fine.
"""

from typing import Any, Literal, TypeAlias

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional as F

from gen.errors import InvalidInput

LinearCode: TypeAlias = Literal["transform", "mean"]
"""Of what a code is made: the Karhunen-Loeve transform of blocks, or of their mean colours."""


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


def _residual_network(
    inputs: int, width: int, depth: int, outputs: int, std: float = 0.0
) -> nn.Sequential:
    """Convolution, `depth` residual blocks, and a convolution that starts with weights of `std`."""
    last = nn.Conv2d(width, outputs, 3, padding=1, bias=False)
    nn.init.normal_(last.weight, std=std)
    blocks = [ResidualBlock(width) for _ in range(depth)]
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *blocks, last)


def fixed_noise(image: Tensor) -> Tensor:
    """Standard normal noise of the shape and type of `image`, equal for all of its rows."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(image.shape[1:], generator=generator)
    return noise.to(image).expand_as(image)


class BlockAutoencoder(ModelMixin, ConfigMixin):
    """Images (N, C, H, W) in [-1, 1] <-> latents (N, latent_channels, H/block, W/block).

    It has the `encode`/`decode` interface of diffusers' AutoencoderKL; the posterior's standard
    deviation is the constant `posterior_std`. `fit` sets the linear code before anything else.
    """

    @register_to_config
    def __init__(
        self,
        block_size: int = 16,
        latent_channels: int = 16,
        in_channels: int = 1,
        out_channels: int = 1,
        context_channels: int = 192,
        num_context_blocks: int = 2,
        refine_channels: int = 48,
        num_refine_blocks: int = 3,
        shuffle: int = 4,
        posterior_std: float = 0.1,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1, 1),
        scaling_factor: float = 1.0,
        sample_size: int = 256,
        grain: bool = True,
        linear_code: LinearCode = "transform",
        learned_encoder: bool = True,
        finer: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        pixels, cell = in_channels * block_size**2, in_channels * shuffle**2
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.eye(latent_channels, pixels))
        self.register_buffer("gain", torch.ones(latent_channels))
        context, depth = context_channels, num_context_blocks
        if learned_encoder:
            self.encode_context = _residual_network(pixels, context, depth, latent_channels)
        features = refine_channels * (block_size // shuffle) ** 2
        self.decode_context = _residual_network(latent_channels, context, depth, features, 0.01)
        seen = (2 if grain else 1) * cell + refine_channels
        self.refine = _residual_network(seen, refine_channels, num_refine_blocks, cell)
        self.detailer = None if finer is None else BlockAutoencoder(**finer)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the linear code from images (N, C, H, W) in [-1, 1]: latents of mean power 1.

        Raises:
            InvalidInput: there are fewer mean colours than latent channels.
        """
        kept, subspace = self.config.latent_channels, self._subspace()
        if kept > len(subspace):
            what = "mean colours" if self.config.linear_code == "mean" else "pixels"
            raise InvalidInput(
                f"latent_channels is {kept}, but a block has {len(subspace)} {what}, the most that "
                "a code can hold; choose fewer channels or larger blocks"
            )
        shuffled = F.pixel_unshuffle(images, self.config.block_size)
        blocks = shuffled.permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = blocks.mean(0)
        centred = (blocks - mean) @ subspace.T
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        # of components that images lack, rounding leaves an eigenvalue about zero, even below it
        deviation = values[-kept:].flip(0).clamp_min(1e-12).sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(vectors[:, -kept:].flip(1).T @ subspace)
        self.gain.copy_(1 / (deviation * deviation.mean()).sqrt())

    def _subspace(self) -> Tensor:
        """Orthonormal rows (k, pixels) of which the code is made."""
        area = self.config.block_size**2
        if self.config.linear_code == "transform":
            return torch.eye(self.config.in_channels * area, dtype=torch.float64)
        colours = torch.eye(self.config.in_channels, dtype=torch.float64)
        return torch.kron(colours, torch.ones(1, area)) / self.config.block_size

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The code of images (N, C, H, W) in [-1, 1], as a Gaussian posterior."""
        blocks = F.pixel_unshuffle(x, self.config.block_size) - self.mean[:, None, None]
        with torch.autocast(x.device.type, enabled=False):  # detail is less than bf16 resolves
            mean = torch.einsum("nphw,kp->nkhw", blocks, self.basis * self.gain[:, None])
        if self.config.learned_encoder:
            mean = mean + self.encode_context(blocks)
        log_variance = 2 * torch.tensor(self.config.posterior_std).log()
        moments = torch.cat([mean, log_variance.to(mean).expand_as(mean)], dim=1)
        posterior = DiagonalGaussianDistribution(moments)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def linear_decode(self, z: Tensor) -> Tensor:
        """The least-squares image of latents, before the networks' part."""
        with torch.autocast(z.device.type, enabled=False):  # detail is less than bf16 resolves
            blocks = torch.einsum("nkhw,kp->nphw", z, self.basis / self.gain[:, None])
        return F.pixel_shuffle(blocks + self.mean[:, None, None], self.config.block_size)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        """Images (N, C, H, W), about [-1, 1], of latents."""
        cell, block = self.config.shuffle, self.config.block_size
        image = self.linear_decode(z)
        if self.detailer is not None:
            # an edge between large blocks would be detail to the finer code
            image = F.interpolate(F.avg_pool2d(image, block), scale_factor=block, mode="bilinear")
        context = F.pixel_shuffle(self.decode_context(z), block // cell)
        seen = [F.pixel_unshuffle(image, cell), context]
        if self.config.grain:
            seen.append(F.pixel_unshuffle(fixed_noise(image), cell))
        image = image + F.pixel_shuffle(self.refine(torch.cat(seen, dim=1)), cell)
        if self.detailer is not None:
            image = self.detailer.decode(self.detailer.encode(image).latent_dist.mean).sample
        return DecoderOutput(sample=image) if return_dict else (image,)
