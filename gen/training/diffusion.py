"""The diffusion objective: noise schedule, predicted quantity, loss weight."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import DPMSolverMultistepScheduler
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gen.training.loop import LoopConfig


class DiffusionConfig(LoopConfig):
    """What every diffusion recipe's config has."""

    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    beta_start: float = Field(0.0015, gt=0)
    beta_end: float = Field(0.0205, gt=0)
    min_snr_gamma: float | None = Field(5.0, gt=0, description="Hang et al. 2023; null = off")


def noise_schedule(config: DiffusionConfig) -> DPMSolverMultistepScheduler:
    """Scaled-linear betas ending near zero signal, DPM-Solver++ 2M to sample with.

    Karras spacing, since fine detail has far less power than coarse: a last step from a noise
    level above the detail's own would answer with its mean, which is a blur.
    """
    return DPMSolverMultistepScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction_type,
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


def diffusion_target(latents: Tensor, noise: Tensor, alpha_bar: Tensor, kind: str) -> Tensor:
    """epsilon, or v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022)."""
    if kind == "epsilon":
        return noise
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents


def diffusion_loss(
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    min_snr_gamma: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Weighted squared error of the predicted quantity at one random timestep an image.

    Args:
        scheduler: whose noise levels and `prediction_type` are learnt.
        predict: (noisy (N, C, H, W), timesteps (N,)) -> the network's output.
        clean: latents (N, C, H, W) of unit variance.
        min_snr_gamma: see `snr_weight`.
        generator: of noise and timesteps, on the CPU.
    """
    kind = scheduler.config.prediction_type
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    steps = scheduler.config.num_train_timesteps
    timesteps = torch.randint(steps, (len(clean),), generator=generator)
    alpha_bar = scheduler.alphas_cumprod[timesteps].to(clean.device)
    root = alpha_bar.view(-1, 1, 1, 1)
    noisy = root.sqrt() * clean + (1 - root).sqrt() * noise
    output = predict(noisy, timesteps.to(clean.device)).float()
    target = diffusion_target(clean, noise, alpha_bar, kind)
    weight = snr_weight(alpha_bar, kind, min_snr_gamma)
    return (weight * F.mse_loss(output, target, reduction="none").mean(dim=(1, 2, 3))).mean()
