"""VICReg's terms in closed form, and views that keep left left."""

from pathlib import Path

import pytest
import torch

from gen.models.cxr_encoder import CXREncoder
from gen.training.ssl_encoder import SSLEncoderConfig, draw_view, train_ssl_encoder, vicreg_terms


def config_of(folder: Path, **changes: object) -> SSLEncoderConfig:
    """A config of two steps."""
    fields = {
        "data": folder, "output": folder / "out", "num_steps": 2, "batch_size": 4,
        "learning_rate": 1e-3, "image_size": 32, "widths": (8, 16), "feature_dim": 8,
        "projection_dim": 16,
    }  # fmt: skip
    return SSLEncoderConfig.model_validate({**fields, **changes})


def test_equal_views_are_invariant_and_collapsed_ones_do_not_vary() -> None:
    constant = torch.ones(6, 4)
    invariance, variance, covariance = vicreg_terms(constant, constant)
    assert invariance == 0
    assert variance == pytest.approx(1 - 0.01)  # sqrt(1e-4) is left of the deviation
    assert covariance == 0


def test_a_repeated_feature_is_covariance() -> None:
    one = torch.tensor([1.0, -1.0]).repeat(4)
    twice = torch.stack([one, one], 1)
    square = one.var() ** 2
    _, variance, covariance = vicreg_terms(twice, twice)
    assert variance == 0
    assert covariance == pytest.approx(float(2 * (2 * square) / 2))


def test_independent_features_have_none() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    invariance, variance, covariance = vicreg_terms(corners, -corners)
    assert invariance == pytest.approx(4)
    assert variance == 0
    assert covariance == pytest.approx(0)


def test_a_view_is_the_generators_and_never_a_mirror(tmp_path: Path) -> None:
    images = torch.full((16, 1, 32, 32), -1.0)
    images[..., :16] = 1.0
    views = [draw_view(images, config_of(tmp_path), torch.Generator().manual_seed(4)) for _ in "ab"]
    assert torch.equal(*views)
    assert (views[0][..., :4].mean((1, 2, 3)) >= views[0][..., -4:].mean((1, 2, 3)) - 0.05).all()
    assert not torch.equal(views[0][0], views[0][1])


def test_without_changes_a_view_is_the_image(tmp_path: Path) -> None:
    images = torch.rand(3, 1, 32, 32) * 1.9 - 0.95
    still = config_of(tmp_path, min_crop=1.0, max_angle=0, contrast=0, noise=0)
    assert torch.allclose(draw_view(images, still, torch.Generator()), images, atol=1e-4)


def test_the_finished_encoder_loads(radiographs: Path, tmp_path: Path) -> None:
    folder = train_ssl_encoder(config_of(radiographs, output=tmp_path), lambda _: None)
    encoder = CXREncoder.from_pretrained(folder, use_safetensors=True)
    features = encoder.embed(torch.rand(2, 1, 50, 50))
    assert features.shape == (2, 8)
    assert torch.allclose(features.norm(dim=1), torch.ones(2))
