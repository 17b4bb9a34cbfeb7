"""Stochastic DDIM with its eta in the config, and the variance of a released implementation."""

from typing import Any

from diffusers import DDIMScheduler
from diffusers.configuration_utils import register_to_config
from torch import Tensor


class StochasticDDIMScheduler(DDIMScheduler):
    """DDIM (Song et al. 2021, equations 12 and 16); `eta` 0 is deterministic, 1 is DDPM's.

    Args:
        eta: of equation 16.
        legacy_variance: take the single-step beta_t in the place of the strided 1 - abar_t /
            abar_prev, as the release of Graikos et al. 2024 (arXiv 2312.07330) does: its nominal
            eta of 1 adds far less noise. Only to repeat its images.
        others: as DDIMScheduler's, with defaults for latents and without clipping.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0015,
        beta_end: float = 0.0195,
        beta_schedule: str = "scaled_linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        set_alpha_to_one: bool = True,
        rescale_betas_zero_snr: bool = False,
        eta: float = 1.0,
        legacy_variance: bool = False,
    ) -> None:
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            clip_sample=False,
            prediction_type=prediction_type,
            timestep_spacing=timestep_spacing,
            steps_offset=steps_offset,
            set_alpha_to_one=set_alpha_to_one,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self.register_to_config(eta=eta, legacy_variance=legacy_variance)

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        if not self.config.legacy_variance:
            variance: Tensor = super()._get_variance(timestep, prev_timestep)
            return variance
        earlier = prev_timestep >= 0
        before = self.alphas_cumprod[prev_timestep] if earlier else self.final_alpha_cumprod
        return self.betas[timestep] * (1 - before) / (1 - self.alphas_cumprod[timestep])

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        *,
        generator: Any = None,  # by its name `gen.denoising.denoise` knows that noise is added
        **options: Any,
    ) -> Any:
        """As DDIMScheduler's, with the eta of the config."""
        options = {"eta": self.config.eta, "generator": generator, **options}
        return super().step(model_output, timestep, sample, **options)
