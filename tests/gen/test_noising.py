"""Noising and what undoes it, against diffusers' schedulers and by algebra."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from gen.errors import InvalidInput
from gen.noising import PREDICTION_TYPES, Noising

X0, NOISE, SHIFT = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TIMESTEPS = torch.tensor([40, 700])


def answer_of(kind: str, scheduler: Any, noise: Tensor) -> Tensor:
    """What a perfect network says, from diffusers' own formulas."""
    velocity = scheduler.get_velocity(X0, noise, TIMESTEPS)
    return {"epsilon": noise, "v_prediction": velocity, "sample": X0}[kind]


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_it_noises_and_aims_as_diffusers_does_and_tweedie_undoes_it(kind: str) -> None:
    scheduler = DDIMScheduler(prediction_type=kind)
    noising = Noising(scheduler)
    noisy = noising.add(X0, NOISE, TIMESTEPS.float())
    assert torch.allclose(noisy, scheduler.add_noise(X0, NOISE, TIMESTEPS), atol=1e-6)
    answer = noising.target(X0, NOISE, TIMESTEPS)
    assert torch.allclose(answer, answer_of(kind, scheduler, NOISE), atol=1e-6)
    # a timestep of all rows is the same as one each
    assert torch.allclose(noising.clean(noisy, answer, TIMESTEPS), X0, atol=1e-4)
    for row in range(2):
        alone = noising.clean(noisy[row : row + 1], answer[row : row + 1], TIMESTEPS[row].float())
        assert torch.allclose(alone, X0[row : row + 1], atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_shifted_answers_stand_for_shifted_noise(kind: str) -> None:
    noising = Noising(DDIMScheduler(prediction_type=kind))
    noisy = noising.add(X0, NOISE, TIMESTEPS)
    signal, sigma = noising.roots(TIMESTEPS, noisy)
    shifted = noising.shift_noise(noising.target(X0, NOISE, TIMESTEPS), SHIFT, TIMESTEPS)
    clean = noising.clean(noisy, shifted, TIMESTEPS)
    assert torch.allclose(clean, (noisy - sigma * (NOISE + SHIFT)) / signal, atol=1e-4)


def test_timesteps_between_two_count_as_the_nearer() -> None:
    noising = Noising(EulerDiscreteScheduler())
    near, exact = (noising.add(X0, NOISE, torch.tensor(time)) for time in (399.8, 400.0))
    assert torch.equal(near, exact)


def test_schedulers_without_noise_levels_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must have alphas_cumprod"):
        Noising(FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InvalidInput, match="one of: epsilon"):
        Noising(DDIMScheduler(prediction_type="flow"))
