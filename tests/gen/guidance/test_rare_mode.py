"""A mode of one per cent in the plane: guidance finds it, and makes nothing that is not there.

The denoiser is a mixture of Gaussians whose centres, widths and weights are learnt from samples, so
that it is as good as a small training set allows; the classifier is a perceptron.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from gen.denoising import denoise, draw_noise, fresh_scheduler, make_generators
from gen.engine import run
from gen.guidance.boost_and_skip import boost, start_scale
from gen.guidance.minority_score import minority_scores, squared_error
from gen.guidance.ordinal_classifier import towards_class
from gen.models.minority_classifier import classes_of
from gen.noising import Noising
from gen.types import Components, ModelCall, Predict, Process

CENTRES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.5]])
SHARES = torch.tensor([0.495, 0.495, 0.01])
SPREAD = 0.2
NUM_DATA, NUM_SAMPLES, NUM_CLASSES = 20000, 3000, 20
SCHEDULER = DPMSolverMultistepScheduler(
    beta_start=0.0015,
    beta_end=0.0205,
    beta_schedule="scaled_linear",
    prediction_type="v_prediction",
    timestep_spacing="trailing",
)
NOISING = Noising(SCHEDULER)


class Mixture(nn.Module):
    """The v of a mixture of isotropic Gaussians, (N, 2, 1, 1) -> the same."""

    def __init__(self, data: Tensor, num_centres: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(data.flatten(1)[:num_centres].clone())
        self.log_spread = nn.Parameter(torch.full((num_centres,), math.log(0.3)))
        self.log_weight = nn.Parameter(torch.zeros(num_centres))

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The answer at timesteps (N,)."""
        signal, sigma = (each.flatten()[:, None] for each in NOISING.roots(timesteps, noisy))
        variance = self.log_spread.exp() ** 2
        total = signal**2 * variance + sigma**2
        gaps = noisy.flatten(1)[:, None] - signal[..., None] * self.centres
        evidence = self.log_weight - gaps.square().sum(2) / (2 * total) - total.log()
        means = self.centres + (signal * variance / total)[..., None] * gaps
        clean = (evidence.softmax(1)[..., None] * means).sum(1)
        return ((signal * noisy.flatten(1) - clean) / sigma).view_as(noisy)


class Classifier(nn.Module):
    """Noisy points (N, 2, 1, 1) at timesteps (N,) to log-odds of classes of rarity."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 16, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(),
            nn.Linear(128, NUM_CLASSES),
        )  # fmt: skip

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """(N, L)."""
        angles = timesteps[:, None] * torch.exp(-torch.arange(8) * math.log(1000) / 8)
        return self.layers(torch.cat([noisy.flatten(1), angles.sin(), angles.cos()], 1))


def fit(
    network: nn.Module, loss: Callable[[Tensor, Tensor, Tensor], Tensor], steps: int, rate: float
) -> None:
    """`loss` is given rows of the data, noise and timesteps."""
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        rows = torch.randint(NUM_DATA, (1024,), generator=generator)
        noise = torch.randn(1024, 2, 1, 1, generator=generator)
        timesteps = torch.randint(len(NOISING), (1024,), generator=generator).float()
        adam.zero_grad()
        loss(rows, noise, timesteps).backward()
        adam.step()
        schedule.step()


@dataclass(frozen=True)
class Trained:
    """The networks, and the data's quantiles of rarity (N,) with its points (N, 2, 1, 1)."""

    components: Components
    data: Tensor
    quantiles: Tensor


def predict(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def classify(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
    rows = (latents, timestep.expand(len(latents)))
    return (yield ModelCall("minority_classifier", rows, needs_grad=True))


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    modes = torch.multinomial(SHARES, NUM_DATA, True, generator=generator)
    points = CENTRES[modes] + SPREAD * torch.randn(NUM_DATA, 2, generator=generator)
    data = points.view(-1, 2, 1, 1)
    denoiser, classifier = Mixture(data, 200), Classifier()

    def error(rows: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        answer = denoiser(NOISING.add(data[rows], noise, timesteps), timesteps)
        return (answer - NOISING.target(data[rows], noise, timesteps)).square().mean()

    fit(denoiser, error, 300, 2e-2)
    denoiser.requires_grad_(False)
    components: Components = {"unet": denoiser, "minority_classifier": classifier}
    # one generator for all, since nothing here depends on which point is which
    generators = [torch.Generator().manual_seed(2)] * NUM_DATA
    process = minority_scores(data, predict, NOISING, generators, squared_error)
    scores = run(process, components, max_rows=NUM_DATA)
    quantiles = scores.argsort().argsort() / NUM_DATA
    classes = classes_of(quantiles, NUM_CLASSES)

    def surprise(rows: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        log_odds = classifier(NOISING.add(data[rows], noise, timesteps), timesteps)
        return nn.functional.cross_entropy(log_odds, classes[rows])

    fit(classifier, surprise, 1000, 3e-3)
    classifier.requires_grad_(False)
    return Trained(components, data, quantiles)


def sample(trained: Trained, guided: Predict, factor: float = 1.0, skip: int = 0) -> Tensor:
    """Points (N, 2)."""
    scheduler = fresh_scheduler(SCHEDULER, 25)
    generators = make_generators(range(NUM_SAMPLES))
    noise = draw_noise((2, 1, 1), generators)
    start = boost(noise, factor) * start_scale(scheduler, skip)
    process = denoise(start, scheduler, guided, generators, skip=skip)
    return run(process, trained.components, max_rows=NUM_SAMPLES).flatten(1)


def rare_share(points: Tensor) -> float:
    """Of points that lie in the rare mode."""
    return float(((points - CENTRES[2]).norm(dim=1) < 3 * SPREAD).float().mean())


def on_manifold(points: Tensor) -> float:
    """The share of points within three deviations of a mode."""
    distances = (points[:, None] - CENTRES).norm(dim=2).min(1).values
    return float((distances < 3 * SPREAD).float().mean())


def test_the_rare_mode_has_the_highest_scores(trained: Trained) -> None:
    rare = (trained.data.flatten(1) - CENTRES[2]).norm(dim=1) < 3 * SPREAD
    assert float(trained.quantiles[rare].median()) > 0.99
    assert float(trained.quantiles[~rare].median()) < 0.5


def test_plain_sampling_draws_it_as_seldom_as_it_is(trained: Trained) -> None:
    points = sample(trained, predict)
    assert 0.004 < rare_share(points) < 0.012
    assert on_manifold(points) > 0.98


def test_a_classifier_of_level_095_finds_it_ten_times_as_often(trained: Trained) -> None:
    top = classes_of(torch.full((NUM_SAMPLES,), 0.95), NUM_CLASSES)
    points = sample(trained, towards_class(predict, classify, NOISING, top, 1.0))
    assert rare_share(points) > 10 * rare_share(sample(trained, predict))
    assert on_manifold(points) > 0.95


def test_boost_and_skip_finds_it_five_times_as_often(trained: Trained) -> None:
    points = sample(trained, predict, factor=1.6, skip=3)
    assert rare_share(points) > 5 * rare_share(sample(trained, predict))
    assert on_manifold(points) > 0.95
