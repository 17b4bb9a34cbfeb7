"""The network of a large image: windows under the embeddings of where they lie."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen.embedding_field import EmbeddingField
from gen.errors import InvalidInput
from gen.guidance.classifier_free import classifier_free
from gen.large_canvas import PredictWindows
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process
from pipelines.minority import MinoritySampling, led

if TYPE_CHECKING:
    from pipelines.large_image import LargeImagePipeline

OnDenoised = Callable[[Tensor, Tensor], None]
"""(estimate of clean latents (N, C, s, s) of windows, their centres (N, 2) in cells, (y, x))."""


@dataclass(frozen=True)
class GuidedWindows:
    """The U-Net under classifier-free guidance, its condition read off a field.

    `minority` leads it to the rare, and `generator` draws the noise that this takes.
    """

    pipeline: "LargeImagePipeline"
    field: EmbeddingField
    microns_per_pixel: float
    guidance_scale: float
    scheduler: Any
    generator: torch.Generator
    minority: MinoritySampling | None = None
    on_denoised: OnDenoised | None = None

    def predict(self) -> Process[PredictWindows]:
        """What answers windows.

        Raises:
            InvalidInput: the minority method needs words.
        """
        if self.minority is not None and self.minority.method == "prompt":
            raise InvalidInput(
                "minority_method is 'prompt', which learns a word, but large images follow"
                " embeddings; choose boost_and_skip or self_guided"
            )
        unet, factor = self.pipeline.unet, self.pipeline.vae_scale_factor
        scale = torch.tensor([self.microns_per_pixel], device=unet.device, dtype=torch.float32)
        null = yield ModelCall("null", (scale,))
        noising = Noising(self.scheduler)

        def predict(latents: Tensor, timestep: Tensor, centres: Tensor) -> Process[Tensor]:
            embeddings = self.field.at(centres * factor).to(unet.device, unet.dtype)
            context = yield ModelCall("projection", (embeddings, scale.expand(len(embeddings))))
            guided = classifier_free(self._unet, context, null, self.guidance_scale)
            output = yield from self._led(guided, context, timestep, noising)(latents, timestep)
            if self.on_denoised is not None:
                self.on_denoised(noising.clean(latents, output, timestep), centres)
            return output

        return predict

    def _led(self, guided: Predict, context: Tensor, timestep: Tensor, noising: Noising) -> Predict:
        """The guided network, led to the rare at the steps at which gradients act."""
        minority = self.minority
        if minority is None or minority.method == "boost_and_skip":
            return guided
        step = int((self.scheduler.timesteps.float() - timestep.cpu()).abs().argmin())
        if step % minority.interval:
            return guided

        def probe(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
            return (yield from self._unet(latents, timestep, context, needs_grad=True))

        classifier = self.pipeline.minority_classifier
        generators = [self.generator] * len(context)
        at_once = replace(minority, every=1)
        return led(at_once, guided, probe, classifier, context, noising, generators)

    def _unet(
        self, latents: Tensor, timestep: Tensor, context: Tensor, needs_grad: bool = False
    ) -> Process[Tensor]:
        timesteps = timestep.to(latents.device).expand(len(latents))
        return (yield ModelCall("unet", (latents, timesteps, context), needs_grad))
