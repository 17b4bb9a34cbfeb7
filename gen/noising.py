"""What noise of a level does to clean latents, and what a network's answer then says of them."""

from typing import Any

from torch import Tensor

from gen.errors import InvalidInput

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Noising:
    """The forward process of a diffusers scheduler, x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise.

    Latents, noise and outputs are (N, C, H, W). A timestep is () or (N,); one between two of the
    training schedule, as some schedulers have, counts as the nearer.

    Args:
        scheduler: for its alphas_cumprod and prediction type.

    Raises:
        InvalidInput: it has neither, or another prediction type.
    """

    def __init__(self, scheduler: Any) -> None:
        kind = scheduler.config.get("prediction_type", "none")
        if not hasattr(scheduler, "alphas_cumprod") or kind not in PREDICTION_TYPES:
            raise InvalidInput(
                f"scheduler is a {type(scheduler).__name__} of prediction_type {kind}, but must"
                f" have alphas_cumprod and one of: {', '.join(PREDICTION_TYPES)}; give the model's"
                " DDPM scheduler"
            )
        self.prediction_type: str = kind
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod

    def __len__(self) -> int:
        """Timesteps of the training schedule."""
        return len(self.alphas_cumprod)

    def roots(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), to multiply rows of `like` with."""
        index = timestep.round().long().to(self.alphas_cumprod.device)
        alpha_bar = self.alphas_cumprod[index].to(like.device).float().reshape(-1, 1, 1, 1)
        return alpha_bar.sqrt().to(like.dtype), (1 - alpha_bar).sqrt().to(like.dtype)

    def add(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t."""
        signal, sigma = self.roots(timestep, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What the network shall answer: the noise, x0, or v (Salimans & Ho 2022)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        signal, sigma = self.roots(timestep, clean)
        return signal * noise - sigma * clean

    def clean(self, noisy: Tensor, output: Tensor, timestep: Tensor) -> Tensor:
        """Tweedie's estimate of x0 behind an answer."""
        if self.prediction_type == "sample":
            return output
        signal, sigma = self.roots(timestep, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - sigma * output) / signal
        return signal * noisy - sigma * output

    def shift_noise(self, output: Tensor, shift: Tensor, timestep: Tensor) -> Tensor:
        """The answer that says the same with so much more noise, which is how guidance pushes."""
        if self.prediction_type == "epsilon":
            return output + shift
        signal, sigma = self.roots(timestep, output)
        if self.prediction_type == "sample":
            return output - sigma / signal * shift
        return output + shift / signal
