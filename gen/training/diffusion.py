"""The diffusion objective: noise schedule, predicted quantity, loss weight."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import DPMSolverMultistepScheduler
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gen.noising import Noising
from gen.training.loop import LoopConfig


class DiffusionConfig(LoopConfig):
    """What every diffusion recipe's config has."""

    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    beta_start: float = Field(0.0015, gt=0)
    beta_end: float = Field(0.0205, gt=0)
    min_snr_gamma: float | None = Field(5.0, gt=0, description="Hang et al. 2023; null = off")


def noise_schedule(
    config: DiffusionConfig, stochastic: bool = False
) -> DPMSolverMultistepScheduler:
    """Scaled-linear betas ending near zero signal, DPM-Solver++ 2M to sample with.

    A `stochastic` one adds noise at every step, which mends what a small network got wrong before.

    Karras spacing, since fine detail has far less power than coarse: a last step from a noise
    level above the detail's own would answer with its mean, which is a blur.
    """
    return DPMSolverMultistepScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction_type,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        timestep_spacing="trailing",
        use_karras_sigmas=True,
    )


def snr_weight(alpha_bar: Tensor, prediction_type: str, gamma: float | None) -> Tensor:
    """Min-SNR-gamma loss weight (Hang et al. 2023, equation 6) for the predicted quantity."""
    snr = alpha_bar / (1 - alpha_bar)
    if gamma is None:
        return torch.ones_like(snr)
    clipped = snr.clamp_max(gamma)
    return clipped / snr if prediction_type == "epsilon" else clipped / (snr + 1)


def diffusion_loss(
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    min_snr_gamma: float | None,
    generator: torch.Generator,
    cell_weight: Tensor | None = None,
) -> Tensor:
    """Weighted squared error of the predicted quantity at one random timestep an image.

    Args:
        scheduler: whose noise levels and `prediction_type` are learnt.
        predict: (noisy (N, C, H, W), timesteps (N,)) -> the network's output.
        clean: latents (N, C, H, W) of unit variance.
        min_snr_gamma: see `snr_weight`.
        generator: of noise and timesteps, on the CPU.
        cell_weight: (N, 1, H, W), each cell's part in the mean over its image; None is all alike.
    """
    noising = Noising(scheduler)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    timesteps = torch.randint(len(noising), (len(clean),), generator=generator).to(clean.device)
    output = predict(noising.add(clean, noise, timesteps), timesteps).float()
    target = noising.target(clean, noise, timesteps)
    alpha_bar = scheduler.alphas_cumprod.to(clean.device)[timesteps]
    weight = snr_weight(alpha_bar, noising.prediction_type, min_snr_gamma)
    error = F.mse_loss(output, target, reduction="none")
    if cell_weight is not None:
        error = error * (cell_weight / cell_weight.mean(dim=(1, 2, 3), keepdim=True))
    return (weight * error.mean(dim=(1, 2, 3))).mean()
