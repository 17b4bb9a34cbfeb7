"""A small convolutional encoder of radiographs, trained without labels."""

import itertools

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock(nn.Module):
    """A 3x3 convolution and a pointwise one around a residual sum (He et al. 2016, bottleneck)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, inputs)
        self.spatial = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.mix = nn.Conv2d(outputs, outputs, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        h = F.silu(self.norm(x))
        return self.skip(h) + self.mix(F.silu(self.spatial(h)))


class CXREncoder(ModelMixin, ConfigMixin):
    """Images (N, 1, S, S) in [-1, 1], any S, to features (N, feature_dim).

    Images are resized once, antialiased, to `sample_size`. The features are the mean over
    positions of the last grid, without a final activation.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        widths: tuple[int, ...] = (24, 48, 96, 160, 192),
        feature_dim: int = 128,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 3, 2, padding=1)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [ConvBlock(inputs, outputs, 2), ConvBlock(outputs, outputs, 1)]
        self.trunk = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(8, widths[-1])
        self.head = nn.Linear(widths[-1], feature_dim)

    def resize(self, x: Tensor) -> Tensor:
        """Images at the side this encoder sees."""
        side = self.config.sample_size
        if x.shape[-2:] == (side, side):
            return x
        return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, feature_dim) of images (N, 1, S, S) in [-1, 1]."""
        grid = F.silu(self.norm(self.trunk(self.resize(x))))
        features: Tensor = self.head(grid.mean(dim=(2, 3)))
        return features

    def fine_grid(self, x: Tensor) -> Tensor:
        """What the first block sees, (N, D, S / 4, S / 4), of images (N, 1, S, S) in [-1, 1]."""
        grid: Tensor = self.trunk[:2](self.resize(x))
        return grid

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Features of unit length, for distances."""
        return F.normalize(self(x), dim=-1)
