"""From the embedding of a self-supervised encoder to what a U-Net attends to."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class SSLProjection(ModelMixin, ConfigMixin):
    """Embeddings (N, embedding_dim) and magnifications (N,) to context (N, num_tokens + 1, D).

    Graikos et al. 2024 (arXiv 2312.07330, section 3.2) attend to one token, a linear function of
    the embedding, whose null is the layer's bias. Here the null is a learnt embedding of its own,
    and a last token tells the magnification in microns a pixel, as ZoomLDM's does (arXiv
    2411.16969), but as a function of its logarithm, so that magnifications between the trained
    ones have a meaning.

    Args:
        embedding_dim: of the encoder.
        cross_attention_dim: D of the U-Net.
        num_tokens: tokens made of one embedding.
        num_frequencies: sines and cosines of the magnification's logarithm.
    """

    @register_to_config
    def __init__(
        self,
        embedding_dim: int = 64,
        cross_attention_dim: int = 128,
        num_tokens: int = 4,
        num_frequencies: int = 4,
    ) -> None:
        super().__init__()
        self.null_embedding = nn.Parameter(torch.zeros(embedding_dim))
        self.project = nn.Linear(embedding_dim, num_tokens * cross_attention_dim)
        self.scale = nn.Sequential(
            nn.Linear(2 * num_frequencies, cross_attention_dim),
            nn.SiLU(),
            nn.Linear(cross_attention_dim, cross_attention_dim),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, embeddings: Tensor, microns_per_pixel: Tensor) -> Tensor:
        """Context (N, num_tokens + 1, D) of unit-length embeddings (N, embedding_dim)."""
        # of unit length, a component is about 1 / sqrt(dim): let it be about 1
        scaled = embeddings * math.sqrt(self.config.embedding_dim)
        tokens = self.project(scaled).unflatten(1, (self.config.num_tokens, -1))
        scale = self.scale(self._waves(microns_per_pixel)).unsqueeze(1)
        context: Tensor = self.norm(torch.cat([tokens, scale.to(tokens)], dim=1))
        return context

    def null(self, microns_per_pixel: Tensor) -> Tensor:
        """Context of no embedding at magnifications (N,): what guidance moves away from."""
        return self(self.null_embedding.expand(len(microns_per_pixel), -1), microns_per_pixel)

    def _waves(self, microns_per_pixel: Tensor) -> Tensor:
        octaves = torch.log2(microns_per_pixel.to(self.project.weight))
        steps = torch.arange(self.config.num_frequencies, device=octaves.device)
        angles = octaves[:, None] * (math.pi / 4 * 2.0**steps).to(octaves)
        return torch.cat([angles.sin(), angles.cos()], dim=1)
