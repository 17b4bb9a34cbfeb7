"""Settings of published systems for `LargeImagePipeline.process`."""

from typing import Any

from gen.ddim import StochasticDDIMScheduler


def graikos_2024(scheduler: Any) -> dict[str, Any]:
    """The large images of the release of Graikos et al. 2024 (arXiv 2312.07330, section 3.3).

    A window every quarter of a window, equal weights, 50 stochastic steps from the last timestep
    on, guidance 4 and the release's variance. Decoding stays ours.

    Args:
        scheduler: the model's own, for its betas and prediction type.
    """
    return {
        "method": "overlap",
        "num_inference_steps": 50,
        "guidance_scale": 4.0,
        "scheduler": StochasticDDIMScheduler.from_config(
            scheduler.config,
            timestep_spacing="trailing",
            steps_offset=0,
            eta=1.0,
            legacy_variance=True,
        ),
    }
