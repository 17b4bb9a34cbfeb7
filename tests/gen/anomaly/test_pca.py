"""Principal components give back their span and nothing else."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gen.anomaly.pca import PrincipalComponents, fit_components
from gen.errors import InvalidInput

SIDE = 16
GENERATOR = torch.Generator().manual_seed(0)
BASIS = torch.randn(3, SIDE, SIDE, generator=GENERATOR)


def in_span(count: int, seed: int) -> Tensor:
    """Pictures (count, 1, S, S) in [-1, 1] that three coefficients tell apart."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(count, 3, generator=generator) * torch.tensor([0.1, 0.08, 0.06])
    return torch.einsum("nk,khw->nhw", coefficients, BASIS).clamp(-1, 1)[:, None]


def to_bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8)


@pytest.fixture(scope="module")
def components() -> PrincipalComponents:
    return fit_components(to_bytes(in_span(200, 1)), 3)


def test_its_span_comes_back_to_the_grey_level_and_maps_are_flat(
    components: PrincipalComponents,
) -> None:
    images = in_span(5, 2)
    found = components(images, range(5))
    assert (found.healthy - images).abs().max() < 0.02
    assert found.maps.shape == (5, SIDE, SIDE)
    assert found.maps.max() < 0.02
    assert found.num_network_calls == 0


def test_a_projection_is_exact_and_repeats_itself(components: PrincipalComponents) -> None:
    basis = components.components.flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-5)
    coefficients = torch.tensor([[0.3, -0.2, 0.1]])
    spanned = (components.mean.flatten() + coefficients @ basis).view(1, 1, SIDE, SIDE)
    assert torch.allclose(components.restore(spanned), spanned, atol=1e-5)
    once = components.restore(torch.rand(2, 1, SIDE, SIDE, generator=GENERATOR) / 4)
    assert torch.allclose(components.restore(once), once, atol=1e-5)


def test_what_is_outside_the_span_shows_in_the_map(components: PrincipalComponents) -> None:
    images = in_span(1, 3)
    images[0, 0, 4:7, 4:7] += 0.8
    found = components(images, [0])
    peak = divmod(int(found.maps[0].argmax()), SIDE)
    assert all(3 <= each <= 7 for each in peak)


def test_components_are_saved_with_the_number_of_images(
    components: PrincipalComponents, tmp_path: Path
) -> None:
    components.save(tmp_path / "pca.safetensors")
    loaded = PrincipalComponents.load(tmp_path / "pca.safetensors")
    assert loaded.num_images == 200
    assert torch.equal(loaded.components, components.components)
    assert torch.equal(loaded.mean, components.mean)


def test_wrong_numbers_and_sizes_are_refused(components: PrincipalComponents) -> None:
    with pytest.raises(InvalidInput, match="below the number of healthy pictures, 3"):
        fit_components(to_bytes(in_span(3, 1)), 3)
    with pytest.raises(InvalidInput, match="resize the images"):
        components.restore(torch.zeros(1, 1, 8, 8))
