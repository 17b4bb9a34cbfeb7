"""What a diffusion model knows of healthy anatomy, and what every method asks of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.denoising import draw_noise, fresh_scheduler
from gen.noising import Noising
from gen.types import Predict, Process, Scheduler


@dataclass(frozen=True)
class HealthyPrior:
    """A model under a healthy condition. Methods see one picture and draw from one generator.

    Args:
        predict: the network under the healthy condition, for any number of rows.
        encode: pictures (N, 1, S, S) in [-1, 1] to scaled latents (N, C, h, w).
        decode: the way back.
        scheduler: the model's; each method works on fresh copies.
        generator: of the picture.
        features: pictures (N, 1, S, S) to features (N, h, w, D) of unit length of their patches;
            None compares pixels alone.
        painter: of a network that is shown what is kept, as `gen.inpainting.shown`: known latents
            (N, C, h, w) and a mask (N, 1, h, w) to the network that paints it; None is `predict`.
    """

    predict: Predict
    encode: Callable[[Tensor], Process[Tensor]]
    decode: Callable[[Tensor], Process[Tensor]]
    scheduler: Any
    generator: torch.Generator
    features: Callable[[Tensor], Process[Tensor]] | None = None
    painter: Callable[[Tensor, Tensor], Predict] | None = None

    def painting(self, known: Tensor, mask: Tensor) -> Predict:
        """The network that paints known latents under a mask, see `painter`."""
        return self.predict if self.painter is None else self.painter(known, mask)

    @property
    def noising(self) -> Noising:
        """The forward process."""
        return Noising(self.scheduler)

    def steps(self, num_inference_steps: int, scheduler: Any = None) -> Scheduler:
        """A fresh scheduler, the model's or another, with its timesteps set."""
        return fresh_scheduler(scheduler or self.scheduler, num_inference_steps)

    def noise(self, like: Tensor) -> Tensor:
        """Unit variance noise of that shape, row after row from the generator."""
        return draw_noise(like.shape[1:], [self.generator] * len(like)).to(like)

    def feature_distance(self, picture: Tensor, healthy: Tensor) -> Process[Tensor]:
        """1 - cosine (N, 1, S, S) of the features at each pixel; all ones without an encoder.

        It stands where the papers have LPIPS, whose weights are trained on photographs.
        """
        if self.features is None:
            return torch.ones_like(picture)
        first, second = (yield from self.features(torch.cat([picture, healthy]))).chunk(2)
        distance = (1 - (first * second).sum(-1)).clamp_min(0)[:, None]
        return F.interpolate(distance, picture.shape[-2:], mode="bilinear").to(picture)


@dataclass(frozen=True)
class Departure:
    """Where a picture is unlike healthy ones.

    Args:
        map: (1, 1, S, S), at least 0; larger is less healthy.
        healthy: (1, 1, S, S) in [-1, 1]: the picture as it would be without disease.
        painted: (1, 1, S, S) in [0, 1], 1 where nothing is left of the picture; None is nowhere.
    """

    map: Tensor
    healthy: Tensor
    painted: Tensor | None = None


Method = Callable[[HealthyPrior, Tensor], Process[Departure]]
"""(prior, picture (1, 1, S, S) in [-1, 1]) -> where it departs from what the prior expects."""
