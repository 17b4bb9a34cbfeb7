"""One picture varied, painted in part, or drawn from words: the processes of augmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.anomaly.regions import Mask
from gen.augmentation.areas import in_square
from gen.augmentation.overlay import laid_over
from gen.augmentation.sdedit import sdedit, steps_left_out
from gen.data.model_square import XYWH, ModelSquare
from gen.denoising import fresh_scheduler, make_generators
from gen.inpainting import blended_latents, to_cells
from gen.noising import Noising
from gen.types import Predict, Process, Scheduler
from pipelines.pictures import decode_pictures, encode_pictures, paint_all, painter
from pipelines.text_to_cxr import TextToCXRPipeline

ALWAYS = (0.0, 1.0)  # guidance acts at all noise levels

Area = NDArray[np.generic] | XYWH
"""Where to paint: a mask (H, W) on the picture's pixels, or a box (x, y, w, h) in them."""

OnDone = Callable[[int, int, Tensor], None]
"""(steps done, of how many, estimate of the clean latents (1, c, h, w))."""


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn; see `pipelines.augmentation.AugmentationPipeline.__call__`."""

    prompt: str
    negative_prompt: str
    strength: float
    guidance_scale: float
    num_inference_steps: int
    seed: int
    on_step: OnDone | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A picture (H, W) in [0, 1], and where it lies in the model's square."""

    pixels: NDArray[np.float32]
    square: ModelSquare

    def seen(self, device: torch.device) -> Tensor:
        """As the model sees it: (1, 1, S, S) in [-1, 1]."""
        fitted = torch.from_numpy(self.square.mirrored(self.square.to_model(self.pixels)))
        return (fitted[None, None] * 2 - 1).to(device)


def schedule_of(drawn: TextToCXRPipeline, sampling: Sampling) -> tuple[Scheduler, int]:
    """A fresh scheduler, and how many of its steps are left out.

    Raises:
        InvalidInput: strength or number of steps break a rule.
    """
    scheduler = fresh_scheduler(drawn.scheduler, sampling.num_inference_steps, drawn.unet.device)
    return scheduler, steps_left_out(scheduler, sampling.strength)


def synthesised(drawn: TextToCXRPipeline, sampling: Sampling) -> Process[NDArray[np.float32]]:
    """A picture (S, S) in [0, 1] from words alone. Arguments are checked at once."""
    told = sampling.on_step
    num_steps = len(schedule_of(drawn, sampling)[0].timesteps)

    def on_step(index: int, timestep: Tensor, latents: Tensor, estimate: Tensor) -> None:
        if told is not None:
            told(index + 1, num_steps, estimate)

    images = drawn.process(
        sampling.prompt,
        negative_prompt=sampling.negative_prompt or None,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        generator=make_generators([sampling.seed]),
        on_step=on_step,
    )

    def draw() -> Process[NDArray[np.float32]]:
        return _array((yield from images).mean(1, keepdim=True))

    return draw()


def varied(
    drawn: TextToCXRPipeline, source: Source, sampling: Sampling
) -> Process[NDArray[np.float32]]:
    """The picture drawn anew in part, (H, W) in [0, 1]. Arguments are checked at once."""
    scheduler, skip = schedule_of(drawn, sampling)
    generator = make_generators([sampling.seed])

    def vary() -> Process[NDArray[np.float32]]:
        ask = yield from guided(drawn, sampling)
        predict = watched(paint_all(drawn, ask), scheduler, skip, sampling.on_step)
        latents = yield from encode_pictures(drawn, source.seen(drawn.unet.device))
        latents = yield from sdedit(latents, scheduler, predict, generator, sampling.strength)
        square = _array((yield from decode_pictures(drawn, latents)))
        return np.clip(source.square.from_model((square + 1) / 2), 0, 1)

    return vary()


def painted(
    drawn: TextToCXRPipeline, source: Source, mask: Mask, sampling: Sampling
) -> Process[NDArray[np.float32]]:
    """The picture (H, W) in [0, 1] painted under a mask (H, W), and exact outside it.

    Arguments are checked at once.
    """
    scheduler, skip = schedule_of(drawn, sampling)
    generator = make_generators([sampling.seed])
    fitted = torch.from_numpy(in_square(mask, source.square))[None, None]
    cells = to_cells(fitted, drawn.vae_scale_factor).to(drawn.unet.device)

    def paint() -> Process[NDArray[np.float32]]:
        ask = yield from guided(drawn, sampling)
        known = yield from encode_pictures(drawn, source.seen(drawn.unet.device))
        predict = watched(painter(drawn, ask, known, cells), scheduler, skip, sampling.on_step)
        latents = yield from blended_latents(known, cells, scheduler, predict, generator, skip)
        both = yield from decode_pictures(drawn, torch.cat([known, latents]))
        change = source.square.from_model(_array(both[1:] - both[:1]) / 2)
        return laid_over(source.pixels, change, mask)

    return paint()


def guided(drawn: TextToCXRPipeline, sampling: Sampling) -> Process[Predict]:
    """The network under the words of one picture."""
    condition, null = yield from drawn.encode_prompts([sampling.prompt], [sampling.negative_prompt])
    return drawn.guided(condition, null, sampling.guidance_scale, ALWAYS)


def watched(predict: Predict, scheduler: Scheduler, skip: int, on_step: OnDone | None) -> Predict:
    """The same network, of whose answers `on_step` is told."""
    if on_step is None:
        return predict
    num_steps, noising = len(scheduler.timesteps) - skip, Noising(scheduler)
    counted = iter(range(1, num_steps + 1))

    def ask(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        output = yield from predict(latents, timestep)
        on_step(next(counted), num_steps, noising.clean(latents, output, timestep.reshape(1)))
        return output

    return ask


def _array(pictures: Tensor) -> NDArray[np.float32]:
    """The first of pictures (N, 1, S, S), (S, S)."""
    return np.asarray(pictures[0, 0].float().cpu(), np.float32)
