"""The denoising loop and what it starts from: schedulers, generators, noise.

Any diffusers scheduler drives the loop. A scheduler keeps state (earlier model outputs, a step
counter), so each request takes a fresh one.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.types import Predict, Process, Scheduler

OnStep = Callable[[int, Tensor, Tensor, Tensor], Tensor | None]
"""(index of the step, its timestep (), latents after it (N, C, H, W), the scheduler's estimate of
the clean ones, of the same shape) -> other latents, or None to go on with these."""

DEFAULT_SCHEDULER = "dpm++"

# Settings for what a model's own config leaves open. Latents are not bounded by [-1, 1], so
# clipping must be asked for; PNDM without its Runge-Kutta start is what Stable Diffusion uses.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}


def scheduler_named(name: str, config: Mapping[str, Any]) -> Scheduler:
    """Build the scheduler of that name for a model.

    Args:
        name: a key of `SCHEDULERS`.
        config: the config of the model's own scheduler: betas, prediction type, spacing.
    """
    if name not in SCHEDULERS:
        raise InvalidInput(f"scheduler is {name!r}, but must be one of: {', '.join(SCHEDULERS)}")
    scheduler_class, defaults = SCHEDULERS[name]
    scheduler: Scheduler = scheduler_class.from_config({**defaults, **config})
    return scheduler


def fresh_scheduler(
    scheduler: Any, num_inference_steps: int, device: torch.device | str | None = None
) -> Scheduler:
    """Copy a diffusers scheduler from its config and set its timesteps.

    Heun's and PNDM's schedulers call the network more often than `num_inference_steps`.
    """
    longest = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= longest:
        raise InvalidInput(
            f"num_inference_steps is {num_inference_steps}, but must be from 1 to {longest}; try 30"
        )
    fresh: Scheduler = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps, device=device)
    return fresh


def make_generators(
    seeds: Sequence[int], device: torch.device | str = "cpu"
) -> list[torch.Generator]:
    """Seed one generator for each image; on the CPU, a seed means the same noise on any machine."""
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise InvalidInput(f"seed is {seed}, but must be from 0 to 2**63 - 1; try {abs(seed)}")
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def draw_noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw standard normal noise, (N, *shape): one row from each generator, on its device."""
    size = tuple(shape)
    return torch.stack(
        [torch.randn(size, generator=g, device=g.device, dtype=dtype) for g in generators]
    )


def denoise(
    latents: Tensor,
    scheduler: Scheduler,
    predict: Predict,
    generator: Sequence[torch.Generator],
    on_step: OnStep | None = None,
    skip: int = 0,
) -> Process[Tensor]:
    """Take latents along the scheduler's timesteps to clean ones.

    Args:
        latents: (N, C, H, W), noise times `scheduler.init_noise_sigma`.
        scheduler: a fresh one, which this process alone uses.
        predict: the network with its guidance; its timestep is float32 whatever the scheduler,
            so that requests with different schedulers share a forward.
        generator: one for each image, for the schedulers that add noise.
        on_step: sees every step and may replace the latents.
        skip: steps left out at the start; the latents are of the noise level behind them.

    Returns:
        The denoised latents (N, C, H, W).

    Raises:
        InvalidInput: there is not a generator for each image, or the scheduler cannot skip.
    """
    check_generators(generator, len(latents))
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    noise = {"generator": list(generator)} if takes_generator else {}
    begin(scheduler, skip)
    for index, timestep in enumerate(scheduler.timesteps[skip:], skip):
        model_input = scheduler.scale_model_input(latents, timestep)
        model_output = yield from predict(model_input, timestep.float())
        output = scheduler.step(model_output, timestep, latents, **noise)
        latents = output.prev_sample
        if on_step is not None:
            replaced = on_step(index, timestep, latents, denoised(scheduler, output))
            latents = latents if replaced is None else replaced
    return latents


def check_generators(generator: Sequence[torch.Generator], num_images: int) -> None:
    """Raise InvalidInput unless there is one for each image."""
    if len(generator) != num_images:
        raise InvalidInput(
            f"generator has {len(generator)} entries for {num_images} images; give one for each"
        )


def begin(scheduler: Scheduler, step: int) -> None:
    """Set a fresh scheduler to its step of that number.

    Raises:
        InvalidInput: it counts its steps itself.
    """
    if not step:
        return
    if hasattr(scheduler, "counter"):
        raise InvalidInput(
            f"scheduler is a {type(scheduler).__name__}, which cannot leave out its first {step}"
            f" steps; choose another, such as {DEFAULT_SCHEDULER}"
        )
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(step)


def denoised(scheduler: Scheduler, output: Any) -> Tensor:
    """The estimate of x0 behind a step's output, or the latents of schedulers that keep none."""
    estimate = getattr(output, "pred_original_sample", None)
    # a config made for another scheduler may be left over, so what it says is not enough
    if estimate is None and hasattr(scheduler, "model_outputs") and _keeps_x0(scheduler.config):
        estimate = scheduler.model_outputs[-1]
    return output.prev_sample if estimate is None else estimate


def _keeps_x0(config: Any) -> bool:
    """Whether a multistep scheduler remembers estimates of x0, not of the noise."""
    data_prediction = str(config.get("algorithm_type", "")).endswith("++")
    return data_prediction or bool(config.get("predict_x0", False))
