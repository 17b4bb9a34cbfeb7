"""Paint part of an image anew, so that it goes on what is kept around it.

Any diffusion model can do so: after each step the kept part is put back, with the noise of that
step. A model trained to be shown what is kept (its network has channels for it and for the mask)
needs no such help, and sees the context from the first step on.

Masks are (N, 1, h, w), 1 where latents are painted and 0 where they are kept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gen.denoising import check_generators, denoise, draw_noise
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.types import Predict, Process, Scheduler


def blended_latents(
    known: Tensor,
    mask: Tensor,
    scheduler: Scheduler,
    predict: Predict,
    generator: Sequence[torch.Generator],
    skip: int = 0,
) -> Process[Tensor]:
    """Latents (N, C, h, w) that are `known` but for what the mask says.

    Avrahami et al. 2023 (Blended Latent Diffusion, arXiv 2206.02779, algorithm 1).

    Args:
        known: (N, C, h, w), clean.
        mask: see above.
        scheduler: a fresh one, which this process alone uses; of any kind.
        predict: the network, guided or not.
        generator: one for each image.
        skip: steps left out at the start, where the noised image is begun from: 0 forgets what was
            under the mask, more keeps some of it.

    Raises:
        InvalidInput: an argument breaks a rule.
    """
    check_inputs(known, mask, scheduler, generator, skip)
    if hasattr(scheduler, "set_begin_index"):
        # else its noise is that of a timestep, and of fine steps several are rounded to one
        scheduler.set_begin_index(skip)
    noise = draw_noise(known.shape[1:], generator).to(known)
    start = scheduler.add_noise(known, noise, scheduler.timesteps[skip : skip + 1])
    if skip == 0:  # the last level of a schedule is not pure noise, but models start from that
        pure = draw_noise(known.shape[1:], generator).to(known) * scheduler.init_noise_sigma
        start = torch.where(mask.bool(), pure, start)
    put_back = keep_known(known, mask, scheduler, generator)
    return (yield from denoise(start, scheduler, predict, generator, put_back, skip))


def keep_known(
    known: Tensor, mask: Tensor, scheduler: Scheduler, generator: Sequence[torch.Generator]
) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """After each step, `known` with the noise of the next one where nothing is painted.

    What it answers is a `gen.denoising.OnStep`.
    """

    def put_back(index: int, timestep: Tensor, latents: Tensor, _: Tensor) -> Tensor:
        kept = known
        if index + 1 < len(scheduler.timesteps):
            noise = draw_noise(known.shape[1:], generator).to(known)
            kept = scheduler.add_noise(known, noise, scheduler.timesteps[index + 1 : index + 2])
        return torch.where(mask.bool(), latents, kept.to(latents))

    return put_back


def repaint(
    known: Tensor,
    mask: Tensor,
    scheduler: Scheduler,
    predict: Predict,
    generator: Sequence[torch.Generator],
    skip: int = 0,
    num_resamples: int = 5,
    start: Tensor | None = None,
) -> Process[Tensor]:
    """As `blended_latents`, going each step several times (Lugmayr et al. 2022, algorithm 1).

    RePaint, arXiv 2201.09865: noising what a step gave and taking the step again lets the two parts
    grow together. Its jumps have a length of one step.

    Args:
        known, mask, predict, generator, skip: see `blended_latents`.
        scheduler: a fresh one whose steps do not depend on earlier ones, such as
            `gen.ddim.StochasticDDIMScheduler`.
        num_resamples: U, how often each step is taken.
        start: clean latents (N, C, h, w) that are noised to begin from; None is `known`.

    Raises:
        InvalidInput: an argument breaks a rule.
    """
    check_inputs(known, mask, scheduler, generator, skip)
    if num_resamples < 1:
        raise InvalidInput(f"num_resamples is {num_resamples}, but must be at least 1; try 5")
    noising = Noising(scheduler)
    timesteps = scheduler.timesteps[skip:].float()
    put_back = keep_known(known, mask, scheduler, generator)
    latents = noising.add(
        known if start is None else start,
        draw_noise(known.shape[1:], generator).to(known),
        timesteps[0],
    )
    for number, timestep in enumerate(timesteps):
        for resample in range(num_resamples):
            output = yield from predict(latents, timestep)
            step = scheduler.step(output, timestep.long(), latents, generator=list(generator))
            earlier = step.prev_sample
            earlier = put_back(skip + number, timestep, earlier, earlier)
            if number + 1 == len(timesteps) or resample + 1 == num_resamples:
                break
            latents = noise_again(earlier, noising, timesteps[number + 1], timestep, generator)
        latents = earlier
    return latents


def noise_again(
    latents: Tensor,
    noising: Noising,
    timestep: Tensor,
    later: Tensor,
    generator: Sequence[torch.Generator],
) -> Tensor:
    """Latents of one timestep as they are at a later, noisier one: q(x_later | x_timestep)."""
    before, _ = noising.roots(timestep, latents)
    after, _ = noising.roots(later, latents)
    ratio = after / before
    noise = draw_noise(latents.shape[1:], generator).to(latents)
    return ratio * latents + (1 - ratio**2).sqrt() * noise


def shown(predict: Predict, known: Tensor, mask: Tensor) -> Predict:
    """The predictor of a network with channels for what is kept: latents, then `context_of`."""
    check_mask(known, mask)
    context = context_of(known, mask)

    def with_context(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        return (yield from predict(torch.cat([latents, context.to(latents)], 1), timestep))

    return with_context


def context_of(known: Tensor, mask: Tensor) -> Tensor:
    """What such a network is shown beside noisy latents (N, C, h, w): (N, 1 + C, h, w).

    The mask and the kept latents, 0 where it paints, as Stable Diffusion's inpainting models.
    """
    return torch.cat([mask.to(known), known * (1 - mask.to(known))], 1)


def to_cells(mask: Tensor, factor: int, dilation: int = 0) -> Tensor:
    """The mask (N, 1, h, w) of latents of a mask (N, 1, H, W) of pixels: all cells it touches.

    Args:
        mask: 1 or True where pixels are painted.
        factor: pixels a cell.
        dilation: cells that the mask grows by on each side.

    Raises:
        InvalidInput: the image does not consist of whole cells.
    """
    if mask.shape[2] % factor or mask.shape[3] % factor:
        raise InvalidInput(
            f"mask has the shape {tuple(mask.shape)}, but its sides must be multiples of {factor};"
            " fit image and mask to such a size"
        )
    cells = torch.nn.functional.max_pool2d(mask.float(), factor)
    if dilation:
        cells = torch.nn.functional.max_pool2d(cells, 2 * dilation + 1, 1, dilation)
    return cells


def check_inputs(
    known: Tensor,
    mask: Tensor,
    scheduler: Scheduler,
    generator: Sequence[torch.Generator],
    skip: int,
) -> None:
    """Raise InvalidInput if what the processes here are given breaks a rule."""
    check_mask(known, mask)
    check_generators(generator, len(known))
    if not 0 <= skip < len(scheduler.timesteps):
        raise InvalidInput(
            f"skip is {skip}, but must leave one of {len(scheduler.timesteps)} steps; try 0"
        )


def check_mask(known: Any, mask: Tensor) -> None:
    """Raise InvalidInput unless a mask is (N, 1, h, w) of 0 and 1 for latents (N, C, h, w)."""
    if known.ndim != 4 or mask.shape != (len(known), 1, *known.shape[2:]):
        raise InvalidInput(
            f"mask has the shape {tuple(mask.shape)}, but must be (N, 1, h, w) for latents of"
            f" {tuple(known.shape)}; see gen.inpainting.to_cells"
        )
    if bool(((mask != 0) & (mask != 1)).any()):
        raise InvalidInput(
            f"mask holds values from {mask.min()} to {mask.max()}, but must be 1 where latents are"
            " painted and 0 where they are kept; cut it at a threshold"
        )
