"""The U-Net of the diffusion recipes."""

from typing import Any

from diffusers import UNet2DConditionModel
from pydantic import Field

from gen.training.loop import LoopConfig


class UNetConfig(LoopConfig):
    """The U-Net's part of a recipe's config."""

    block_out_channels: tuple[int, ...] = (128, 176)
    down_block_types: tuple[str, ...] = ("DownBlock2D", "CrossAttnDownBlock2D")
    layers_per_block: int = Field(2, ge=1)
    attention_head_dim: int = Field(4, ge=1, description="Heads, under its historic name")


def build_unet(config: UNetConfig, channels: int, size: int, cross_attention_dim: int) -> Any:
    """A U-Net for (channels, size, size) whose way up mirrors its way down."""
    up = [kind.replace("Down", "Up") for kind in reversed(config.down_block_types)]
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        down_block_types=config.down_block_types,
        up_block_types=tuple(up),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=16,
    )
