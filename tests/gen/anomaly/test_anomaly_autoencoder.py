"""An autoencoder that learns from a seed, and what it says of what it never saw."""

import pytest
import torch
from torch import Tensor

from gen.anomaly.autoencoder import (
    AutoencoderConfig,
    autoencoder_detector,
    make_autoencoder,
    train_autoencoder,
)
from gen.errors import InvalidInput

SIDE = 32
CONFIG = AutoencoderConfig(channels=(8, 8, 8), num_steps=120, batch_size=8)


def ramps(count: int, seed: int) -> Tensor:
    """Pictures (count, 1, S, S) uint8, each a smooth slope of its own."""
    slopes = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    unit = (slopes[:, :1, None] * y + slopes[:, 1:, None] * x) / 2
    return ((unit[:, None] + 1) * 127.5).round().to(torch.uint8)


def test_it_repeats_what_is_like_its_training_and_a_spot_stays_in_the_map() -> None:
    steps: list[tuple[int, int]] = []
    network = train_autoencoder(
        ramps(64, 0), CONFIG, 0, report=lambda done, total: steps.append((done, total))
    )
    assert steps[-1] == (120, 120)
    detect = autoencoder_detector(network)
    images = ramps(4, 1).float() / 127.5 - 1
    healthy = detect(images, range(4))
    assert (healthy.healthy - images).abs().mean() < 0.5 * images.abs().mean()
    assert healthy.num_network_calls == 4
    spotted = images.clone()
    spotted[:, :, 10:14, 16:20] = 1
    maps = detect(spotted, range(4)).maps
    assert (maps[:, 10:14, 16:20].mean((1, 2)) > 2 * maps.mean((1, 2))).all()


def test_weights_follow_the_seed_alone() -> None:
    short = CONFIG.model_copy(update={"num_steps": 3})
    first, again, other = (
        train_autoencoder(ramps(8, 0), short, seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_code_is_narrow() -> None:
    network = make_autoencoder(AutoencoderConfig(), 256)
    code = network.get_submodule("encode")(torch.zeros(2, 1, 256, 256))
    assert code[0].numel() == 512  # of 65536 pixels


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(InvalidInput, match="side is 36, but must be a multiple of 8"):
        make_autoencoder(CONFIG, 36)
