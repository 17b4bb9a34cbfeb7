"""Every method with a prior that knows exactly which pictures are healthy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.autoddpm import QUANTILE, autoddpm, unlikelihood
from gen.anomaly.autopaint import (
    DRAWN_FROM,
    FIRST_DRAWS,
    NUM_DRAWS,
    NUM_STEPS,
    autopaint,
    limit_of,
    paint,
    repaired,
)
from gen.anomaly.healthy_prior import Departure, HealthyPrior, Method
from gen.anomaly.patchwise import patches, patchwise, starts
from gen.anomaly.residuals import absolute_residual
from gen.anomaly.single_step import LEVELS, expectation, single_step
from gen.anomaly.single_step import NUM_DRAWS as SINGLE_STEP_DRAWS
from gen.anomaly.thor import HARMONISE, anomaly, harmonic_mean, thor
from gen.denoising import draw_noise, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.types import ModelCall, Process

SIDE, FACTOR = 32, 2
CELLS = SIDE // FACTOR
MEAN, DEVIATION = 0.2, 0.5
NUM_TIMESTEPS = 200  # of a schedule like that of 1000, for speed
SUSPICIOUS = 0.05


def calibrated(prior: HealthyPrior, picture: Tensor) -> Process[Departure]:
    """As a model's card has it."""
    return (yield from autopaint(prior, picture, SUSPICIOUS))


METHODS: dict[str, Method] = {
    "autopaint": calibrated,
    "patchwise": patchwise,
    "autoddpm": autoddpm,
    "thor": thor,
    "single_step": single_step,
}


def healthy_pictures(count: int = 12) -> Tensor:
    """Smooth pictures (count, 1, S, S) in black air."""
    coarse = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    cells = F.interpolate(0.5 * coarse, (CELLS, CELLS), mode="bicubic").clamp(-0.7, 0.4)
    cells[:, :, :3] = -1
    return decoded(cells)


def decoded(cells: Tensor) -> Tensor:
    """Pictures (N, 1, S, S) of latents."""
    return F.interpolate(cells, scale_factor=FACTOR, mode="bilinear")


HEALTHY = healthy_pictures()
PLACE = (slice(None), slice(None), slice(16, 22), slice(8, 14))


def lesioned(number: int) -> Tensor:
    """A healthy picture with a bright square."""
    picture = HEALTHY[number : number + 1].clone()
    picture[PLACE] += 0.5
    return picture


def outside() -> Tensor:
    """Pixels (1, 1, S, S) that are more than three cells away from the square."""
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[PLACE] = 1
    return F.max_pool2d(mask, 13, 1, 6) == 0


class World:
    """The exact denoiser of a set of pictures, half as large as latents, and all it was asked."""

    def __init__(
        self,
        prediction_type: str = "v_prediction",
        seed: int = 0,
        num_timesteps: int = NUM_TIMESTEPS,
    ) -> None:
        self.scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=num_timesteps,
            beta_schedule="scaled_linear",
            beta_start=1.5 / num_timesteps,
            beta_end=20.5 / num_timesteps,
            prediction_type=prediction_type,
            timestep_spacing="trailing",
            use_karras_sigmas=True,
        )
        self.noising = Noising(self.scheduler)
        self.known = F.avg_pool2d(HEALTHY, FACTOR)
        self.seed = seed
        self.asked: list[tuple[float, Tensor]] = []

    def unet(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The posterior mean of the set, as the scheduler wants to be answered."""
        self.asked.append((float(timesteps[0]), noisy))
        signal, sigma = self.noising.roots(timesteps[:1], noisy)
        distances = (noisy[:, None] - signal * self.known).square().sum((2, 3, 4))
        weights = (-distances / (2 * sigma.flatten() ** 2)).softmax(1)
        return self.answer(torch.einsum("nk,kchw->nchw", weights, self.known), noisy, timesteps[:1])

    def answer(self, clean: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        signal, sigma = self.noising.roots(timestep, noisy)
        return self.noising.target(clean, (noisy - signal * clean) / sigma, timestep)

    @property
    def prior(self) -> HealthyPrior:
        def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
            return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))

        def encode(pictures: Tensor) -> Process[Tensor]:
            return (yield ModelCall("encoder", (pictures,)))

        def decode(latents: Tensor) -> Process[Tensor]:
            return (yield ModelCall("decoder", (latents,)))

        (generator,) = make_generators([self.seed])
        return HealthyPrior(predict, encode, decode, self.scheduler, generator)

    @property
    def networks(self) -> dict[str, Any]:
        return {
            "unet": self.unet,
            "encoder": lambda pictures: F.avg_pool2d(pictures, FACTOR),
            "decoder": decoded,
        }

    def run(self, process: Process[Departure]) -> Departure:
        return run(process, self.networks, max_rows=1024)

    @property
    def num_rows(self) -> int:
        return sum(len(rows) for _, rows in self.asked)


class Gaussian(World):
    """The exact denoiser of N(MEAN, DEVIATION^2), which every draw of noise moves a little."""

    def unet(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append((float(timesteps[0]), noisy))
        signal, sigma = self.noising.roots(timesteps[:1], noisy)
        gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + sigma**2)
        clean = MEAN + gain * (noisy - signal * MEAN)
        return self.answer(clean, noisy, timesteps[:1])


def found_by(
    method: Method, picture: Tensor, world: type[World] = World, **settings: Any
) -> Departure:
    there = world(**settings)
    return there.run(method(there.prior, picture))


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("name", METHODS)
def test_a_bright_square_is_found_and_healed(name: str, number: int) -> None:
    picture = lesioned(number)
    found = found_by(METHODS[name], picture)
    assert found.map.shape == found.healthy.shape == picture.shape
    assert found.map.min() >= 0
    assert not outside().flatten()[found.map.argmax()]
    assert found.map[PLACE].mean() > 3 * found.map[outside()].mean()
    change = (found.healthy - HEALTHY[number : number + 1]).abs()
    assert change[PLACE].mean() < 0.3 * 0.5
    assert change[outside()].mean() < 0.02


@pytest.mark.parametrize("name", METHODS)
def test_a_healthy_picture_is_left_nearly_alone(name: str) -> None:
    found = found_by(METHODS[name], HEALTHY[3:4])
    assert (found.healthy - HEALTHY[3:4]).abs().max() < 0.02


@pytest.mark.parametrize("name", ["autopaint", "patchwise", "single_step"])
def test_maps_of_healthy_pictures_are_low(name: str) -> None:
    lesion = found_by(METHODS[name], lesioned(3)).map.max()
    assert found_by(METHODS[name], HEALTHY[3:4]).map.max() < 0.1 * lesion


@pytest.mark.parametrize("name", METHODS)
def test_what_a_network_predicts_makes_no_difference(name: str) -> None:
    by_type = [
        found_by(METHODS[name], lesioned(1), Gaussian, prediction_type=each)
        for each in ("epsilon", "sample", "v_prediction")
    ]
    for found in by_type[1:]:
        assert torch.allclose(found.map, by_type[0].map, atol=1e-3)
        assert torch.allclose(found.healthy, by_type[0].healthy, atol=3e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_decides_all_draws(name: str) -> None:
    first, again, other = (
        found_by(METHODS[name], lesioned(1), Gaussian, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.allclose(first.map, again.map, atol=1e-5)
    assert not torch.allclose(first.map, other.map, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_detail_that_the_decoder_cannot_draw_stays(name: str) -> None:
    detail = 0.05 * (-1.0) ** torch.arange(SIDE)  # gone in every latent
    smooth, detailed = (
        found_by(METHODS[name], picture) for picture in (lesioned(3), lesioned(3) + detail)
    )
    body = slice(8, None)  # black air can be no darker
    kept = (detailed.healthy - smooth.healthy)[..., body, :]
    share = torch.ones_like(kept)
    if name == "autopaint":  # but for what it paints anew
        assert smooth.painted is not None
        share -= smooth.painted[..., body, :]
        assert 0 < share.mean() < 1
    assert torch.allclose(kept, share * detail, atol=1e-3)


# autopaint: looks, and rounds of painting


LOOK = [NUM_TIMESTEPS * level for level in LEVELS]


def asked_in(num_rounds: int) -> list[tuple[float, int]]:
    """Timesteps and rows of a look, and of rounds of painting between which it looks again."""
    first, again = ([(level, draws) for level in LOOK] for draws in (FIRST_DRAWS, NUM_DRAWS))
    painted = again * NUM_STEPS
    return first + painted * min(1, num_rounds) + (again + painted) * max(0, num_rounds - 1)


def asked_of(world: World) -> list[tuple[float, int]]:
    """Without what draws the detail in the end, whose calls are of one row."""
    looked = [(timestep, len(rows)) for timestep, rows in world.asked if len(rows) > 1]
    drawn = [timestep for timestep, rows in world.asked if len(rows) == 1]
    assert drawn == sorted(drawn, reverse=True)
    assert not drawn or max(drawn) <= DRAWN_FROM * NUM_TIMESTEPS
    assert (len(drawn) > 0) == (len(looked) > len(LOOK))
    return [(pytest.approx(timestep), count) for timestep, count in looked]


def test_autopaint_stops_after_one_look_when_nothing_is_suspicious() -> None:
    world, picture = World(), lesioned(0)
    found = world.run(autopaint(world.prior, picture, suspicious=10.0))
    assert asked_of(world) == asked_in(0)
    assert torch.equal(found.healthy, picture)
    assert found.map[PLACE].mean() > 3 * found.map[outside()].mean()


def test_autopaint_paints_what_is_suspicious_and_nothing_else() -> None:
    picture = lesioned(0)
    world = World()
    found = world.run(autopaint(world.prior, picture, SUSPICIOUS))
    changed = (found.healthy - picture).abs()
    assert changed[PLACE].mean() > 0.3
    assert not changed[outside()].any()
    assert asked_of(world) in (asked_in(1), [*asked_in(1), *asked_in(2)[-6:-4]], asked_in(2))


def test_autopaint_paints_nothing_beside_the_body() -> None:
    picture = lesioned(0)
    beside = (slice(None), slice(None), slice(0, 3), slice(20, 26))
    picture[beside] += 0.8  # a letter in the air
    body = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
    body[:, :, :8] = False
    worlds = [(World(), None), (World(), body)]
    anywhere, kept = (
        world.run(autopaint(world.prior, picture, SUSPICIOUS, body=inside))
        for world, inside in worlds
    )
    assert (anywhere.healthy - picture)[beside].abs().mean() > 0.3
    assert torch.equal(kept.healthy[:, :, :7], picture[:, :, :7])
    assert (kept.healthy - picture)[PLACE].abs().mean() > 0.3


@pytest.mark.parametrize("suspicious", [None, 0.0])
def test_a_picture_without_a_body_stays_as_it_is(suspicious: float | None) -> None:
    world, picture = World(), lesioned(0)
    nowhere = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    found = world.run(autopaint(world.prior, picture, suspicious, body=nowhere))
    assert torch.equal(found.healthy, picture)
    assert asked_of(world) == asked_in(0)


def test_where_no_threshold_is_known_that_of_the_body_decides() -> None:
    found = torch.linspace(0, 1, SIDE * SIDE).reshape(1, 1, SIDE, SIDE)
    body = found <= 0.5
    assert limit_of(found, body) == pytest.approx(0.49, abs=0.002)
    assert limit_of(found, ~body) == pytest.approx(0.99, abs=0.002)


class Fickle(World):
    """Expects something else each time it is asked, so that there is always a new suspicion."""

    def unet(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append((float(timesteps[0]), noisy))
        clean = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(len(self.asked)))
        return self.answer(clean, noisy, timesteps[:1])


@pytest.mark.parametrize("num_rounds", [1, 2, 4])
def test_autopaint_paints_no_more_often_than_it_may(num_rounds: int) -> None:
    world = Fickle()
    picture = HEALTHY[:1]
    world.run(autopaint(world.prior, picture, num_rounds=num_rounds))
    assert asked_of(world) == asked_in(num_rounds)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_painting_walks_to_the_mean_of_gaussian_data_and_moves_nothing_else(
    num_steps: int,
) -> None:
    """A step takes x to m + gain (x - m), the gain being the mean of those of the levels."""
    world = Gaussian()
    latents = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros_like(latents)
    mask[..., 8:] = 1
    found = run(paint(world.prior, latents, mask, num_steps), world.networks)
    abar = [float(world.noising.alphas_cumprod[round(level)]) for level in LOOK]
    gain = np.mean([a * DEVIATION**2 / (a * DEVIATION**2 + 1 - a) for a in abar])
    assert torch.equal(found[..., :8], latents[..., :8])
    slope, level = np.polyfit(
        (latents - MEAN)[..., 8:].flatten().numpy(), (found - MEAN)[..., 8:].flatten().numpy(), 1
    )
    assert slope == pytest.approx(gain**num_steps, abs=0.01)
    assert level == pytest.approx(0, abs=0.01)


def test_a_repair_fades_out_at_its_mask_and_stays_in_range() -> None:
    picture, healthy = torch.full((1, 1, 16, 16), 0.9), torch.full((1, 1, 16, 16), 0.5)
    shares = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    found = repaired(picture, healthy, shares)
    assert torch.allclose(found, 0.9 - 0.4 * shares)
    assert repaired(picture, 9 * healthy, shares).max() == 1


# autoddpm


def test_autoddpm_works_with_a_threshold_and_without() -> None:
    """A release indexes the number by picture, and only runs without."""
    picture = lesioned(0)

    def over(threshold: float | None) -> Departure:
        return found_by(lambda prior, seen: autoddpm(prior, seen, threshold), picture)

    by_number, by_itself = over(0.13), over(None)
    for found in (by_number, by_itself):
        assert found.map[PLACE].mean() > 3 * found.map[outside()].mean()
    # above all likelihoods nothing is stitched in
    stitchless = over(2.0)
    assert torch.allclose(stitchless.healthy, picture, atol=1e-6)
    assert stitchless.map.max() < 1e-6
    assert (by_number.healthy - picture).abs().max() > 0.3


def test_an_unlikelihood_is_the_residual_over_its_quantile_cut_off_at_1() -> None:
    picture, other = torch.rand(2, 1, 1, 20, 20)
    residual = absolute_residual(picture, other).numpy()
    wanted = np.minimum(residual / np.quantile(residual, QUANTILE), 1)
    assert unlikelihood(picture, other).numpy() == pytest.approx(wanted, rel=1e-4)
    assert not unlikelihood(picture, picture).any()


@pytest.fixture(scope="module")
def timesteps() -> Iterator[dict[str, list[float]]]:
    """What the published algorithms ask a network of 1000 training steps at."""
    asked = {}
    for name in ("autoddpm", "thor"):
        world = World(num_timesteps=1000)
        world.run(METHODS[name](world.prior, lesioned(0)))
        assert all(len(rows) == 1 for _, rows in world.asked)
        asked[name] = [timestep for timestep, _ in world.asked]
    return asked


def test_autoddpm_asks_as_often_as_published(timesteps: dict[str, list[float]]) -> None:
    reconstruction, resampling = timesteps["autoddpm"][:201], timesteps["autoddpm"][201:]
    assert reconstruction == list(range(200, -1, -1))
    # timesteps 50 to 1 five times each; what is clean is not resampled
    assert resampling == [t for t in range(50, 0, -1) for _ in range(5)] + [0]


# thor


def test_thor_asks_as_often_as_published(timesteps: dict[str, list[float]]) -> None:
    twice = {1000 * level for level in HARMONISE}
    wanted = [t for t in range(350, -1, -1) for _ in range(2 if t in twice else 1)]
    assert timesteps["thor"] == wanted


def test_thor_keeps_black_air_black_and_takes_the_same_noise_again() -> None:
    """A release clamps the mixture to [0, 1], which turns the background of -1 to 0."""
    world, picture = World(), lesioned(0)
    found = world.run(thor(world.prior, picture))
    assert torch.allclose(found.healthy[:, :, :4], torch.tensor(-1.0), atol=1e-3)
    noise = draw_noise((1, CELLS, CELLS), make_generators([0]))
    for level in HARMONISE:
        timestep = torch.tensor(NUM_TIMESTEPS * level)
        _, harmonised = (rows for asked, rows in world.asked if asked == timestep)
        signal, sigma = world.noising.roots(timestep, harmonised)
        mixture = (harmonised - sigma * noise) / signal
        assert torch.allclose(mixture[:, :, :2], torch.tensor(-1.0), atol=1e-3)


def test_a_harmonic_mean_is_low_where_one_map_is() -> None:
    maps = [torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 6.0, 1.0]), torch.tensor([1.0, 3, 1])]
    assert harmonic_mean(maps).tolist() == pytest.approx([1, 3, 0], abs=1e-5)
    single = torch.rand(1, 1, 5, 5)
    assert torch.allclose(harmonic_mean([single]), single.clamp_min(1e-6))


def test_a_level_of_thor_is_between_0_and_1_and_fills_what_rims_surround() -> None:
    side = 128
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    radius = torch.hypot(y - 64.0, x - 40.0)
    ring = ((radius > 6) & (radius < 9)).float()[None, None]
    found = anomaly(ring)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[0, 0, 64, 40] > 0.25  # half of the closing, in the middle of the ring
    assert found[0, 0, 64, 100] == 0
    assert torch.allclose(anomaly(3 * ring), found, atol=1e-5)


# single_step


@pytest.mark.parametrize(
    ("levels", "num_draws"), [(LEVELS, SINGLE_STEP_DRAWS), ((0.3,), 1), ((0.1,), 7)]
)
def test_a_single_step_costs_one_row_a_level_and_draw(
    levels: tuple[float, ...], num_draws: int
) -> None:
    """It is one call a level: no chain of steps, whatever the papers call it."""
    world = World()
    world.run(single_step(world.prior, lesioned(0), levels, num_draws))
    assert world.num_rows == len(levels) * num_draws
    asked = [timestep for timestep, _ in world.asked]
    assert asked == pytest.approx([NUM_TIMESTEPS * level for level in levels])


def test_an_expectation_of_gaussian_data_is_the_closed_form() -> None:
    """At a level it is m + gain (x - m); draws of noise cancel out."""
    world, levels = Gaussian(), (0.2, 0.5)
    latents = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    process = expectation(world.prior, latents, levels, num_draws=800)
    found = run(process, world.networks, max_rows=1024)
    abar = [float(world.noising.alphas_cumprod[round(NUM_TIMESTEPS * each)]) for each in levels]
    gain = np.mean([a * DEVIATION**2 / (a * DEVIATION**2 + 1 - a) for a in abar])
    assert found.numpy() == pytest.approx((MEAN + gain * (latents - MEAN)).numpy(), abs=0.05)


# patchwise


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 24))
def test_patches_of_any_side_cover_every_cell(height: int, width: int, side: int) -> None:
    masks = patches(height, width, side)
    assert masks.shape[1:] == (1, height, width)
    assert (masks.sum(0) >= 1).all()
    assert (masks.sum((1, 2, 3)) == min(side, height) * min(side, width)).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_squares_begin_half_a_side_apart_and_end_with_the_picture(length: int, side: int) -> None:
    found = starts(length, side)
    assert found[0] == 0
    assert found[-1] == max(0, length - side)
    apart = np.diff(found)
    assert (apart > 0).all()
    assert (apart[:-1] == max(1, side // 2)).all()
    assert (apart <= max(1, side // 2)).all()


def test_a_patch_is_painted_from_what_lies_around_it() -> None:
    """Its own pixels are forgotten but for what the start keeps: the rest is as it was."""
    world, picture = World(), lesioned(2)
    world.run(patchwise(world.prior, picture))
    masks = patches(CELLS, CELLS, 4)
    assert {len(rows) for _, rows in world.asked} == {len(masks)}
    assert max(timestep for timestep, _ in world.asked) <= 0.6 * NUM_TIMESTEPS
    assert len(world.asked) < 15


# options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("autopaint", {"suspicious": 10.0}),
        ("patchwise", {"patch": 8}),
        ("autoddpm", {"threshold": 2.0}),
        ("autoddpm", {"num_inference_steps": 100}),
        ("thor", {"num_inference_steps": 100}),
        ("single_step", {"levels": (0.4,)}),
        ("single_step", {"num_draws": 1}),
    ],
)
def test_every_option_changes_what_is_found(name: str, options: dict[str, Any]) -> None:
    def with_options(prior: HealthyPrior, picture: Tensor) -> Process[Departure]:
        method = autopaint if name == "autopaint" else METHODS[name]
        return (yield from method(prior, picture, **options))  # type: ignore[call-arg]

    plain, changed = (
        found_by(method, lesioned(1), Gaussian).map for method in (METHODS[name], with_options)
    )
    assert not torch.allclose(changed, plain, atol=1e-4)


@pytest.mark.parametrize("name", ["autoddpm", "thor"])
def test_steps_that_reach_no_level_are_refused(name: str) -> None:
    def with_one(prior: HealthyPrior, picture: Tensor) -> Process[Departure]:
        return (yield from METHODS[name](prior, picture, num_inference_steps=1))  # type: ignore[call-arg]

    with pytest.raises(InvalidInput, match="raise it, or num_inference_steps"):
        found_by(with_one, HEALTHY[:1])
