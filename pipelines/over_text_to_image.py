"""The part that pipelines share which use a text-to-image model to do more than draw."""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline

from gen.store.catalogue import resolve
from pipelines.text_to_cxr import TextToCXRPipeline


class OverTextToImage(DiffusionPipeline):
    """Components of `TextToCXRPipeline`, loaded as it loads them, for another `__call__`.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: see `TextToCXRPipeline`.
    """

    def __init__(
        self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )

    @classmethod
    def over(cls, drawn: TextToCXRPipeline) -> Self:
        """By a model that is loaded already; it and its networks are shared."""
        pipeline = cls(drawn.vae, drawn.text_encoder, drawn.tokenizer, drawn.unet, drawn.scheduler)
        pipeline.register_to_config(_name_or_path=drawn.config._name_or_path)
        return pipeline

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        allow_download: bool = False,
    ) -> Self:
        """Load an embedded model, a folder, a hub id or a Stable Diffusion checkpoint, safely.

        Raises:
            ModelRefused: see `gen.store.loading.load_components`.
        """
        return cls.over(
            TextToCXRPipeline.from_pretrained(
                model_id, torch_dtype=torch_dtype, allow_download=allow_download
            )
        )

    @property
    def text_to_image(self) -> TextToCXRPipeline:
        """The model as it draws; its networks are this pipeline's."""
        return TextToCXRPipeline(**self.components)

    @property
    def model_id(self) -> str | None:
        """What the model was loaded by; None if it was put together from components."""
        loaded: str | None = self.config.get("_name_or_path")
        return loaded

    @cached_property
    def weight_sha256(self) -> str:
        """Hash over all weight files of the model that was loaded, read once."""
        return resolve(self.config._name_or_path).weight_sha256

    @property
    def size(self) -> int:
        """Side in pixels of the square that pictures are seen in."""
        return self.text_to_image.default_size
