"""A tiny but whole text-to-image model in diffusers layout, saved once and copied per test."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gen.store.card import write_card

WIDTH = 16
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
CARD = {
    "id": "tiny",
    "task": "text-to-image",
    "modality": "DX",
    "image_size": 16,
    "pixel_range": (-1.0, 1.0),
    "channels": 1,
    "licence": "Apache-2.0",
    "training_data": [{"name": "noise", "licence": "CC0-1.0", "images": 1}],
    "recipe": "none",
    "device": "cpu",
    "images_seen": 0,
    "evaluation": {"fid": 400.0},
    "limits": ["random weights"],
}


def tiny_unet(cross_attention_dim: int = WIDTH) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=cross_attention_dim,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def tiny_text_encoder() -> CLIPTextModel:
    torch.manual_seed(1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64,
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
        )
    )


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model; do not change it, see `tiny_model`."""
    folder = tmp_path_factory.mktemp("store") / "tiny"
    tiny_unet().save_pretrained(folder / "unet")
    tiny_text_encoder().save_pretrained(folder / "text_encoder")
    torch.manual_seed(2)
    vae = AutoencoderKL(in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4)
    vae.save_pretrained(folder / "vae")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    words = [*"abcdefg", *(f"{letter}</w>" for letter in "abcdefg")]
    vocabulary = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


@pytest.fixture
def tiny_model(saved_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, without a card, to break."""
    return Path(shutil.copytree(saved_model, tmp_path / "tiny"))


@pytest.fixture
def carded_model(tiny_model: Path) -> Path:
    """A copy of the tiny model with its card."""
    write_card(tiny_model, **CARD)
    return tiny_model
