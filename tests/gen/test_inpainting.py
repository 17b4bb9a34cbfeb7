"""Painting around what is kept: what stays, and against the conditional law of a Gaussian."""

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from gen.ddim import StochasticDDIMScheduler
from gen.denoising import SCHEDULERS, fresh_scheduler, make_generators, scheduler_named
from gen.engine import run
from gen.errors import InvalidInput
from gen.inpainting import blended_latents, noise_again, repaint, shown, to_cells
from gen.noising import Noising
from gen.types import ModelCall, Process

CONFIG = {"beta_schedule": "scaled_linear", "beta_end": 0.0205, "timestep_spacing": "trailing"}

# rows of four neighbours, of which the outer two are kept
MEAN = torch.tensor([1.0, -1.0, 0.5, 2.0])
COVARIANCE = torch.tensor(
    [[1.0, 0.8, 0.5, 0.3], [0.8, 1.0, 0.8, 0.5], [0.5, 0.8, 1.0, 0.8], [0.3, 0.5, 0.8, 1.0]]
)
LAW = MultivariateNormal(MEAN, COVARIANCE)
NUM_ROWS = 10_000


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def smooth(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A network whose answer at a cell depends on its neighbours and the timestep."""
    return torch.tanh(latents + latents.roll(1, -1) - timesteps[:, None, None, None] / 1000)


def masks_of(*columns: int, channels: int = 2) -> tuple[Tensor, Tensor]:
    """Latents (N, C, 4, 6) and masks that paint from a column on."""
    generator = torch.Generator().manual_seed(9)
    known = torch.randn(len(columns), channels, 4, 6, generator=generator)
    mask = torch.zeros(len(columns), 1, 4, 6)
    for row, column in zip(mask, columns, strict=True):
        row[..., column:] = 1
    return known, mask


# PNDM counts its steps itself and cannot leave some out
@pytest.mark.parametrize(
    ("name", "skip"),
    [*((name, 0) for name in SCHEDULERS), *((name, 4) for name in SCHEDULERS if name != "pndm")],
)
def test_what_is_kept_comes_back_exactly(name: str, skip: int) -> None:
    known, mask = masks_of(3, 5)
    scheduler = fresh_scheduler(scheduler_named(name, CONFIG), 10)
    process = blended_latents(known, mask, scheduler, predict, make_generators([0, 1]), skip)
    made = run(process, {"unet": smooth})
    kept = ~mask.bool().expand_as(known)
    assert torch.equal(made[kept], known[kept])
    assert not torch.isclose(made[~kept], known[~kept]).any()


@pytest.mark.parametrize("skip", [0, 4])
def test_what_is_kept_comes_back_exactly_from_repainting(skip: int) -> None:
    known, mask = masks_of(3, 5)
    scheduler = fresh_scheduler(StochasticDDIMScheduler(), 10)
    process = repaint(known, mask, scheduler, predict, make_generators([0, 1]), skip, 3)
    made = run(process, {"unet": smooth})
    kept = ~mask.bool().expand_as(known)
    assert torch.equal(made[kept], known[kept])
    assert not torch.isclose(made[~kept], known[~kept]).any()


def levels_seen(scheduler: Any) -> list[tuple[float, float]]:
    """Mean and deviation, at every call, of cells that are kept at 2."""
    seen: list[tuple[float, float]] = []

    def watch(latents: Tensor, timesteps: Tensor) -> Tensor:
        seen.append((float(latents.mean()), float(latents.std())))
        return torch.zeros_like(latents)

    known, mask = torch.full((1, 1, 256, 256), 2.0), torch.zeros(1, 1, 256, 256)
    run(blended_latents(known, mask, scheduler, predict, make_generators([0])), {"unet": watch})
    return seen


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_network_sees_kept_cells_with_the_noise_of_its_timestep(name: str) -> None:
    scheduler: Any = fresh_scheduler(scheduler_named(name, CONFIG), 10)
    seen = levels_seen(scheduler)
    assert len(seen) == len(scheduler.timesteps)
    for timestep, (mean, deviation) in zip(scheduler.timesteps, seen, strict=True):
        abar = float(scheduler.alphas_cumprod[int(timestep)])
        assert mean == pytest.approx(2 * abar**0.5, abs=0.02)
        assert deviation == pytest.approx((1 - abar) ** 0.5, rel=0.02)


def test_steps_that_round_to_one_timestep_keep_their_own_noise() -> None:
    config = DPMSolverMultistepScheduler(**CONFIG, use_karras_sigmas=True)
    scheduler: Any = fresh_scheduler(config, 150)
    assert len(scheduler.timesteps.unique()) < 150
    for sigma, (_, deviation) in zip(scheduler.sigmas, levels_seen(scheduler), strict=False):
        assert deviation == pytest.approx(float(sigma / (1 + sigma**2) ** 0.5), rel=0.02)


@pytest.mark.parametrize("name", ["dpm++", "euler-a", "ddpm"])
def test_a_batch_equals_each_alone(name: str) -> None:
    known, mask = masks_of(1, 3, 5)

    def painted(rows: slice) -> Tensor:
        scheduler = fresh_scheduler(scheduler_named(name, CONFIG), 6)
        generators = make_generators([4, 5, 6])[rows]
        return run(
            blended_latents(known[rows], mask[rows], scheduler, predict, generators, 2),
            {"unet": smooth},
        )

    together = painted(slice(None))
    for row in range(3):
        alone = painted(slice(row, row + 1))
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_a_repainted_batch_equals_each_alone() -> None:
    known, mask = masks_of(1, 3, 5)

    def painted(rows: slice) -> Tensor:
        scheduler = fresh_scheduler(StochasticDDIMScheduler(), 6)
        generators = make_generators([4, 5, 6])[rows]
        process = repaint(known[rows], mask[rows], scheduler, predict, generators, 2, 3)
        return run(process, {"unet": smooth})

    together = painted(slice(None))
    for row in range(3):
        alone = painted(slice(row, row + 1))
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def gaussian_rows(num_resamples: int | None) -> Tensor:
    """Rows (NUM_ROWS, 4) whose middle is painted between outer cells of the Gaussian.

    The network is the ideal one, E[x0 | x_t] in closed form; None is one pass of
    `blended_latents`.
    """
    scheduler = StochasticDDIMScheduler(timestep_spacing="trailing")

    def ideal(latents: Tensor, timesteps: Tensor) -> Tensor:
        abar = scheduler.alphas_cumprod[int(timesteps[0])]
        noisy = abar * COVARIANCE + (1 - abar) * torch.eye(4)
        gain = abar.sqrt() * COVARIANCE @ torch.linalg.inv(noisy)
        x0 = MEAN + (latents - abar.sqrt() * MEAN) @ gain.T
        return (latents - abar.sqrt() * x0) / (1 - abar).sqrt()

    torch.manual_seed(0)
    known = LAW.sample((1, 1, NUM_ROWS))
    mask = torch.tensor([0.0, 1.0, 1.0, 0.0]).expand_as(known)
    fresh, generators = fresh_scheduler(scheduler, 40), make_generators([1])
    if num_resamples is None:
        process = blended_latents(known, mask, fresh, predict, generators)
    else:
        process = repaint(known, mask, fresh, predict, generators, num_resamples=num_resamples)
    return run(process, {"unet": ideal})[0, 0]


def conditional(rows: Tensor) -> tuple[Tensor, Tensor]:
    """How the mean of the painted cells moves with the kept ones, and their covariance beyond."""
    covariance, painted, kept = torch.cov(rows.T), slice(1, 3), [0, 3]
    slopes = covariance[painted][:, kept] @ torch.linalg.inv(covariance[kept][:, kept])
    return slopes, covariance[painted, painted] - slopes @ covariance[kept][:, painted]


def test_resampling_approaches_the_law_of_the_painted_given_the_kept() -> None:
    made = [gaussian_rows(num_resamples) for num_resamples in (None, 1, 3, 10)]
    laws = [MultivariateNormal(rows.mean(0), torch.cov(rows.T)) for rows in made]
    # the kept part has its own law anyway, so this is the mean distance of the conditional ones
    distances = [float(kl_divergence(LAW, law)) for law in laws]
    assert distances[1] == pytest.approx(distances[0], rel=0.15)  # one pass is one pass
    assert distances[2] < 0.55 * distances[1]
    assert distances[3] < 0.4 * distances[1]
    true_slopes = torch.tensor([[0.7143, 0.2857], [0.2857, 0.7143]])
    true_rest = torch.tensor([[0.2857, 0.2143], [0.2143, 0.2857]])
    slope, rest = zip(*(conditional(rows) for rows in made), strict=True)
    assert float((slope[1] - true_slopes).abs().max()) > 0.2
    assert torch.allclose(slope[3], true_slopes, atol=0.1)
    assert float((rest[1] - true_rest).abs().max()) > 0.1
    assert torch.allclose(rest[3], true_rest, atol=0.08)
    assert torch.allclose(made[3].mean(0), MEAN, atol=0.05)


def test_noising_again_is_the_forward_process_between_two_timesteps() -> None:
    scheduler = StochasticDDIMScheduler()
    noising, generators = Noising(scheduler), make_generators([0])
    earlier, later = torch.tensor(300.0), torch.tensor(420.0)
    abar_earlier, abar_later = (float(scheduler.alphas_cumprod[int(t)]) for t in (earlier, later))
    fixed = torch.full((1, 1, 300, 300), 3.0)
    once = noise_again(fixed, noising, earlier, later, generators)
    assert float(once.mean()) == pytest.approx(3 * (abar_later / abar_earlier) ** 0.5, abs=0.01)
    assert float(once.var()) == pytest.approx(1 - abar_later / abar_earlier, rel=0.02)
    # after the noise of the earlier timestep, it is the noise of the later one
    noise = torch.randn(fixed.shape, generator=generators[0])
    twice = noise_again(noising.add(fixed, noise, earlier), noising, earlier, later, generators)
    assert float(twice.mean()) == pytest.approx(3 * abar_later**0.5, abs=0.01)
    assert float(twice.var()) == pytest.approx(1 - abar_later, rel=0.02)


def test_a_network_is_shown_the_mask_and_the_kept_latents_alone() -> None:
    known, mask = masks_of(2, 4)
    latents = torch.ones_like(known)
    seen: list[Tensor] = []

    def watch(rows: Tensor, timesteps: Tensor) -> Tensor:
        seen.append(rows)
        return rows[:, :2]

    run(shown(predict, known, mask.bool())(latents, torch.tensor(5.0)), {"unet": watch})
    (rows,) = seen
    assert rows.shape == (2, 5, 4, 6)
    assert torch.equal(rows[:, :2], latents)
    assert torch.equal(rows[:, 2:3], mask)
    assert torch.equal(rows[0, 3:, :, :2], known[0, :, :, :2])
    assert not rows[0, 3:, :, 2:].any()


@given(st.data(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2))
def test_cells_are_all_that_a_mask_touches(data: Any, factor: int, dilation: int) -> None:
    height, width = (data.draw(st.integers(1, 6)) for _ in range(2))
    pixels = torch.zeros(1, 1, height * factor, width * factor, dtype=torch.bool)
    touched = torch.zeros(height, width)
    for _ in range(data.draw(st.integers(0, 4))):
        row = data.draw(st.integers(0, height * factor - 1))
        column = data.draw(st.integers(0, width * factor - 1))
        pixels[0, 0, row, column] = True
        r, c = row // factor, column // factor
        rows = slice(max(0, r - dilation), r + dilation + 1)
        touched[rows, max(0, c - dilation) : c + dilation + 1] = 1
    assert torch.equal(to_cells(pixels, factor, dilation)[0, 0], touched)


def test_an_image_that_is_no_whole_number_of_cells_is_refused() -> None:
    with pytest.raises(InvalidInput, match="multiples of 8"):
        to_cells(torch.ones(1, 1, 16, 20), 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": torch.ones(1, 1, 4, 6)}, r"mask has the shape \(1, 1, 4, 6\)"),
        ({"mask": torch.ones(2, 2, 4, 6)}, r"mask has the shape \(2, 2, 4, 6\)"),
        ({"mask": torch.ones(2, 1, 4, 5)}, r"for latents of \(2, 2, 4, 6\)"),
        ({"mask": torch.full((2, 1, 4, 6), 0.5)}, "mask holds values from 0.5 to 0.5"),
        ({"generator": make_generators([0])}, "generator has 1 entries for 2 images"),
        ({"skip": 10}, "skip is 10, but must leave one of 10 steps"),
        ({"skip": -1}, "skip is -1"),
    ],
)
@pytest.mark.parametrize("process", [blended_latents, repaint])
def test_what_does_not_fit_is_refused(process: Any, changes: Any, words: str) -> None:
    known, mask = masks_of(3, 5)
    given = {"mask": mask, "generator": make_generators([0, 1]), **changes}
    scheduler = fresh_scheduler(StochasticDDIMScheduler(), 10)
    with pytest.raises(InvalidInput, match=words):
        run(process(known, scheduler=scheduler, predict=predict, **given), {"unet": smooth})


def test_a_network_is_not_shown_a_mask_that_does_not_fit() -> None:
    known, mask = masks_of(3, 5)
    with pytest.raises(InvalidInput, match="mask has the shape"):
        shown(predict, known, mask[:1])


def test_each_step_is_taken_once_at_least() -> None:
    known, mask = masks_of(3)
    scheduler = fresh_scheduler(StochasticDDIMScheduler(), 10)
    process = repaint(known, mask, scheduler, predict, make_generators([0]), num_resamples=0)
    with pytest.raises(InvalidInput, match="num_resamples is 0"):
        run(process, {"unet": smooth})
