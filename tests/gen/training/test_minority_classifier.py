"""A classifier of rarity learns what a table of scores says, and stands beside its model."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gen.data.minority_table import read_minority_scores
from gen.errors import InvalidInput
from gen.models.minority_classifier import MinorityClassifier, classes_of
from gen.store.card import read_card
from gen.store.loading import load_components
from gen.training.autoencoder import latent_scale
from gen.training.dataset import read_chest_xrays
from gen.training.minority_classifier import (
    MinorityClassifierConfig,
    hold_out,
    train_minority_classifier,
)
from pipelines.text_to_cxr import TextToCXRPipeline

NUM_IMAGES = 240


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose quantile is the share of them that is bright, and the table of them."""
    folder = tmp_path_factory.mktemp("scored")
    rng = np.random.default_rng(0)
    quantiles = rng.permutation(NUM_IMAGES) / NUM_IMAGES
    fields = ("file", "split", "findings", "prompt", "patient_id", "width", "height")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for i, quantile in enumerate(quantiles):
            pixels = rng.normal(20, 5, (128, 128))
            pixels[: int(128 * quantile)] += 200
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", "train", "No Finding", "a chest", i, 128, 128])
    with (folder / "scores.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "group", "score", "quantile", "group_quantile"])
        for i, quantile in enumerate(quantiles):
            table.writerow([f"{i}.png", "all", quantile, quantile, quantile])
    return folder


def config_of(scored: Path, model: Path, output: Path, **changes: Any) -> MinorityClassifierConfig:
    fields = {
        "data": scored,
        "output": output,
        "base_model": str(model),
        "scores": scored / "scores.csv",
        "num_classes": 4,
        "widths": (16, 16),
        "num_steps": 100,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "num_warmup_steps": 5,
        "ema_decay": 0.8,
    }
    return MinorityClassifierConfig.model_validate({**fields, **changes})


def test_it_learns_the_table_and_stands_beside_its_model(
    scored: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    # random weights give latents that drown in noise: bring them to unit variance
    parts = load_components(tiny_folder)
    images = read_chest_xrays(scored, "train", 16).images
    scale = latent_scale(parts["vae"], images.expand(-1, 3, -1, -1), torch.device("cpu"))
    parts["vae"].register_to_config(scaling_factor=scale)
    TextToCXRPipeline(**parts).save_pretrained(tiny_folder)
    torch.manual_seed(0)
    folder = train_minority_classifier(config_of(scored, tiny_folder, tmp_path), lambda _: None)
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert figures["held_out_images"] == 12
    assert figures["rank_correlation_at_noise_level"]["0.2"] > 0.7
    parts = load_components(folder)
    assert isinstance(parts["minority_classifier"], MinorityClassifier)
    assert TextToCXRPipeline.from_pretrained(folder).unet.config.sample_size == 8
    card = read_card(folder)
    assert card is not None
    assert card.image_size == 16
    assert [each.images for each in card.training_data] == [240 - 12]


def test_rows_are_classified_as_they_would_be_alone_and_by_what_they_shall_show() -> None:
    torch.manual_seed(0)
    network = MinorityClassifier(3, 5, (8, 16), condition_dim=6).eval()
    latents, times = torch.randn(4, 3, 8, 8), torch.tensor([0.0, 10.0, 500.0, 999.0])
    condition = torch.randn(4, 7, 6)
    together = network(latents, times, condition)
    assert together.shape == (4, 5)
    for i in range(4):
        one = slice(i, i + 1)
        alone = network(latents[one], times[one], condition[one])
        assert torch.allclose(alone, together[one], atol=1e-5)
    assert not torch.allclose(network(latents, times, -condition), together)
    assert not torch.allclose(network(latents, times.flip(0), condition), together)


def test_classes_are_equally_many_and_the_ends_belong_to_them() -> None:
    quantiles = (torch.arange(100) + 0.5) / 100
    assert torch.bincount(classes_of(quantiles, 20)).tolist() == [5] * 20
    assert classes_of(torch.tensor([0.0, 1.0]), 20).tolist() == [0, 19]


def test_images_of_all_quantiles_are_held_out() -> None:
    quantiles = torch.rand(100, generator=torch.Generator().manual_seed(0))
    held_out, shown = hold_out(quantiles)
    assert sorted([*held_out.tolist(), *shown.tolist()]) == list(range(100))
    wanted = torch.quantile(quantiles, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    assert torch.allclose(quantiles[held_out], wanted, atol=0.03)


def test_what_cannot_be_learnt_is_refused(scored: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("file,score\n1.png,0.5\n")
    with pytest.raises(InvalidInput, match=r"no table of file, group, score.*minority-scores"):
        read_minority_scores(tmp_path / "other.csv")
    config = config_of(scored, tiny_folder, tmp_path / "out", num_classes=250)
    with pytest.raises(InvalidInput, match="num_classes is 250, but only 240 images"):
        train_minority_classifier(config, lambda _: None)
