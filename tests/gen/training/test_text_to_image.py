"""The diffusion recipe: targets, weights, what learns, and where it may start from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gen.errors import InvalidInput
from gen.training.diffusion import snr_weight
from gen.training.text_to_image import (
    TextToImageConfig,
    prepare_networks,
    train_text_to_image,
    trainable_parts,
)
from pipelines.text_to_cxr import TextToCXRPipeline

ALPHA_BAR = torch.tensor([0.95, 0.5, 0.1])


def config_of(tmp_path: Path, **changes: Any) -> TextToImageConfig:
    """A config of two steps from an existing model."""
    fields = {
        "data": tmp_path,
        "output": tmp_path / "out",
        "num_steps": 2,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "num_warmup_steps": 0,
        "image_size": 32,
        "max_length": 16,
    }
    return TextToImageConfig.model_validate({**fields, **changes})


def test_min_snr_weighs_every_prediction_as_the_same_loss_of_the_image() -> None:
    snr = ALPHA_BAR / (1 - ALPHA_BAR)
    image_weight = snr.clamp_max(5)
    # |x0 error|^2 = |epsilon error|^2 / snr = |v error|^2 / (snr + 1)
    assert torch.allclose(snr_weight(ALPHA_BAR, "epsilon", 5), image_weight / snr)
    assert torch.allclose(snr_weight(ALPHA_BAR, "v_prediction", 5), image_weight / (snr + 1))
    assert torch.equal(snr_weight(ALPHA_BAR, "epsilon", None), torch.ones(3))


@pytest.mark.parametrize(
    ("train", "learning"),
    [
        ("unet", {"unet"}),
        ("unet+text_encoder", {"unet", "text_encoder"}),
        ("frozen_text_encoder", {"unet"}),
    ],
)
def test_only_what_the_mode_names_learns(
    tiny_folder: Path, tmp_path: Path, train: str, learning: set[str]
) -> None:
    config = config_of(tmp_path, train=train, base_model=str(tiny_folder))
    networks = prepare_networks(config, None)
    parts = trainable_parts(networks, config)
    assert set(parts.keys()) == learning
    for name in ("unet", "text_encoder", "vae"):
        module: nn.Module = getattr(networks, name)
        assert all(p.requires_grad for p in module.parameters()) == (name in learning)


def test_lora_learns_a_few_new_weights_and_the_pipeline_takes_them(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    config = config_of(
        tmp_path, data=radiographs, train="lora", base_model=str(tiny_folder), lora_rank=2,
        learning_rate=0.05, image_size=16,
    )  # fmt: skip
    adapter = train_text_to_image(config, lambda _: None)
    generators = {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
    adapted = TextToCXRPipeline.from_pretrained(tiny_folder, lora=adapter)
    changed = adapted("pneumonia", num_inference_steps=2, **generators).images
    generators["generator"] = torch.Generator().manual_seed(0)
    plain = TextToCXRPipeline.from_pretrained(tiny_folder)
    assert abs(changed - plain("pneumonia", num_inference_steps=2, **generators).images).max() > 0


def test_a_swapped_text_encoder_takes_the_old_ones_place(tiny_folder: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path, train="frozen_text_encoder", base_model=str(tiny_folder),
        text_encoder=str(tiny_folder),
    )  # fmt: skip
    networks = prepare_networks(config, None)
    assert networks.tokenizer.model_max_length == 16


def test_a_model_that_went_on_learning_is_a_model_again(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, data=radiographs, base_model=str(tiny_folder), image_size=16)
    folder = train_text_to_image(config, lambda _: None)
    images = TextToCXRPipeline.from_pretrained(folder)("pneumonia", num_inference_steps=2).images
    assert images[0].size == (16, 16)


def test_a_start_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="base_model and autoencoder are both missing"):
        prepare_networks(config_of(tmp_path), None)
