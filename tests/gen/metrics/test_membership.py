"""A model that has learnt images by heart betrays them; one that knows nothing betrays nobody."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gen.denoising import make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.metrics.membership import denoising_losses, membership
from gen.types import Component, ModelCall, Process

LATENTS = torch.randn(60, 4, 8, 8, generator=torch.manual_seed(0))
CONDITION = torch.zeros(60, 1, 1)
KINDS = ("epsilon", "v_prediction", "sample")


def scheduler(kind: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(prediction_type=kind)


def predict(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)), condition)))


def losses(
    unet: Component, latents: Tensor = LATENTS, kind: str = "epsilon", first_seed: int = 0
) -> np.ndarray:
    seeds = range(first_seed, first_seed + len(latents))
    process = denoising_losses(
        latents, CONDITION[: len(latents)], predict, scheduler(kind), make_generators(seeds)
    )
    return run(process, {"unet": unet}, max_rows=16).numpy()


def rote(learnt: Tensor, kind: str) -> Component:
    """The ideal denoiser of a training set of these images alone: the posterior mean of x0."""
    alpha_bars = scheduler().alphas_cumprod

    def unet(noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        alpha_bar = alpha_bars[timestep.long()].view(-1, 1, 1, 1)
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        distances = (noisy[:, None] - signal[:, None] * learnt).square().flatten(2).sum(2)
        weights = torch.softmax(-distances / (2 * sigma.view(-1, 1) ** 2), 1)
        x0 = (weights @ learnt.flatten(1)).view_as(noisy)
        noise = (noisy - signal * x0) / sigma
        return {"epsilon": noise, "sample": x0, "v_prediction": signal * noise - sigma * x0}[kind]

    return unet


def nothing(noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
    return torch.zeros_like(noisy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_learnt_by_heart_betrays_its_images(kind: str) -> None:
    found = losses(rote(LATENTS[:30], kind), kind=kind)
    # what it has seen it knows whatever the noise, by each of the three targets
    assert np.median(found[:30]) == pytest.approx(0, abs=1e-6)
    betrayed = membership(found[:30], found[30:])
    assert betrayed.auroc.value > 0.99
    assert betrayed.true_positive_rate.value > 0.9


def test_a_model_that_knows_nothing_betrays_nobody() -> None:
    latents = LATENTS.repeat(10, 1, 1, 1)
    process = denoising_losses(
        latents, torch.zeros(600, 1, 1), predict, scheduler(), make_generators(range(600))
    )
    found = run(process, {"unet": nothing}, max_rows=600).numpy()
    betrayed = membership(found[:300], found[300:])
    assert betrayed.auroc.low < 0.5 < betrayed.auroc.high
    assert betrayed.auroc.high - betrayed.auroc.low < 0.12
    assert betrayed.true_positive_rate.value < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_answering_zero_is_the_power_of_the_target(kind: str) -> None:
    alpha_bars = scheduler().alphas_cumprod[[50, 100, 200, 400]]
    power = LATENTS.square().mean()
    expected = {
        "epsilon": torch.tensor(1.0),
        "sample": power,
        "v_prediction": (alpha_bars + (1 - alpha_bars) * power).mean(),
    }[kind]
    assert losses(nothing, kind=kind).mean() == pytest.approx(expected.item(), rel=0.02)


def test_a_loss_depends_on_nobody_else() -> None:
    unet = rote(LATENTS[:30], "epsilon")
    alone = [losses(unet, LATENTS[i : i + 1], first_seed=i)[0] for i in (0, 31)]
    assert np.allclose(losses(unet)[[0, 31]], alone, atol=1e-5)


def test_every_timestep_and_draw_asks_the_network_once() -> None:
    asked: list[float] = []

    def unet(noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        asked.extend(timestep.tolist())
        return noisy

    process = denoising_losses(
        LATENTS[:1], CONDITION[:1], predict, scheduler(), make_generators([0]), (3, 999), 2
    )
    run(process, {"unet": unet})
    assert asked == [3, 3, 999, 999]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timesteps": (1000,)}, "0 to 999"),
        ({"timesteps": ()}, "at least one"),
        ({"num_draws": 0}, "num_draws 0"),
        ({"generator": []}, "0 entries for 60"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "FlowMatch.* must have alphas_cumprod"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, object], message: str) -> None:
    given = {"scheduler": scheduler(), "generator": make_generators(range(60)), **settings}
    with pytest.raises(InvalidInput, match=message):
        next(denoising_losses(LATENTS, CONDITION, predict, **given))


def test_the_share_named_is_counted_where_few_held_out_images_are() -> None:
    held_out = np.arange(200.0)  # two of them, 0 and 1, may be named
    train = np.array([-1.0, 0.5, 1.5, 2.0, 300.0])
    found = membership(train, held_out)
    assert found.true_positive_rate.value == 3 / 5
    assert found.true_positive_rate.low < 3 / 5 < found.true_positive_rate.high
    # below 100 held-out images none may
    assert membership(train, held_out[:50]).true_positive_rate.value == 1 / 5
    with pytest.raises(InvalidInput, match="5 train and 0 held-out"):
        membership(train, held_out[:0])
    with pytest.raises(InvalidInput, match="false_positive_rate is 1"):
        membership(train, held_out, 1.0)


@settings(max_examples=20, deadline=None)
@given(
    train=st.lists(st.floats(0, 9), min_size=1, max_size=30),
    held_out=st.lists(st.floats(0, 9), min_size=1, max_size=30),
    rate=st.floats(0, 0.99),
)
def test_no_more_held_out_images_are_named_than_allowed(
    train: list[float], held_out: list[float], rate: float
) -> None:
    both = membership(np.array(held_out), np.array(held_out), rate, 5)
    assert both.true_positive_rate.value <= rate
    found = membership(np.array(train), np.array(held_out), rate, 5)
    assert 0 <= found.true_positive_rate.value <= 1
