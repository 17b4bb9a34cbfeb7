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
from pipelines.rarity import distance_of

if TYPE_CHECKING:
    from pipelines.large_image import LargeImagePipeline

# windows whose gradients are computed at once: what is recorded for them stays in memory, whatever
# the width of the image
LED_TOGETHER = 16

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
            leads = self._leads_at(timestep)
            together = LED_TOGETHER if leads else len(latents)
            parts = []
            for rows, told in zip(latents.split(together), context.split(together), strict=True):
                guided = classifier_free(predict_patches, told, null, self.guidance_scale)
                answer = self._led(guided, told, noising) if leads else guided
                parts.append((yield from answer(rows, timestep)))
            output = torch.cat(parts)
            if self.on_denoised is not None:
                self.on_denoised(noising.clean(latents, output, timestep), centres)
            return output

        return predict

    def _leads_at(self, timestep: Tensor) -> bool:
        """Whether a gradient acts at this step."""
        minority = self.minority
        if minority is None or minority.method == "boost_and_skip":
            return False
        step = int((self.scheduler.timesteps.float() - timestep.cpu()).abs().argmin())
        return step % minority.interval == 0

    def _led(self, guided: Predict, context: Tensor, noising: Noising) -> Predict:
        """The guided network, led to the rare by a gradient at each call."""
        assert self.minority is not None

        def probe(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
            return (yield from predict_patches(latents, timestep, context))

        distance = distance_of(self.minority.distance, self.pipeline.decode_patches)
        classifier = self.pipeline.minority_classifier
        generators = [self.generator] * len(context)
        at_once = replace(self.minority, every=1)
        return led(at_once, guided, probe, classifier, context, noising, generators, distance)


def predict_patches(latents: Tensor, timestep: Tensor, context: Tensor) -> Process[Tensor]:
    """The U-Net's answer (N, c, s, s) at a timestep () under a context (N, L, D).

    It is recorded if the latents are.
    """
    timesteps = timestep.to(latents.device).expand(len(latents))
    return (yield ModelCall("unet", (latents, timesteps, context), latents.requires_grad))
