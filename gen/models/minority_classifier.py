"""A small network that tells from noisy latents how rare the image behind them is."""

from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import Downsample2D, ResnetBlock2D
from torch import Tensor, nn


class MinorityClassifier(ModelMixin, ConfigMixin):
    """Noisy latents (N, c, h, w) to log-odds (N, L) of ordinal classes, 0 the commonest.

    The encoder half of a U-Net, pooled (Um et al. 2024, arXiv 2301.12334, appendix on small data),
    which is told the noise level and, if `condition_dim` is set, what the image is to show: rarity
    is then rarity among images of that kind.

    Args:
        in_channels: of the latents.
        num_classes: L.
        widths: channels of each level; each but the first has half the side of the one before.
        condition_dim: D of the condition (N, T, D), or None.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 20,
        widths: tuple[int, ...] = (32, 64, 96),
        condition_dim: int | None = None,
    ) -> None:
        super().__init__()
        dim = 4 * widths[0]
        self.waves = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(widths[0], dim)
        self.condition = None if condition_dim is None else nn.Linear(condition_dim, dim)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, wider in zip(widths, (*widths[1:], widths[-1]), strict=True):
            options: dict[str, Any] = {"temb_channels": dim, "groups": 8}
            self.blocks.append(ResnetBlock2D(in_channels=width, out_channels=wider, **options))
            self.blocks.append(Downsample2D(wider, use_conv=True, name="op"))
        self.norm = nn.GroupNorm(8, widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(
        self, latents: Tensor, timesteps: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Log-odds (N, L) of latents (N, c, h, w) at timesteps (N,), of a condition (N, T, D)."""
        embedded = self.time(self.waves(timesteps).to(latents.dtype))
        if self.condition is not None and condition is not None:
            embedded = embedded + self.condition(condition.to(latents.dtype).mean(1))
        states = self.conv_in(latents)
        for block in self.blocks:
            is_block = isinstance(block, ResnetBlock2D)
            states = block(states, embedded) if is_block else block(states)
        pooled = nn.functional.silu(self.norm(states)).mean((2, 3))
        log_odds: Tensor = self.head(pooled)
        return log_odds


def classes_of(quantiles: Tensor, num_classes: int) -> Tensor:
    """Classes (N,) of quantiles (N,) in [0, 1], equally many of each."""
    return (quantiles * num_classes).long().clamp(0, num_classes - 1)
