"""Tiny real components, pictures and a PACS that tests of several rooms share."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from orthanc_server import has_orthanc, serve_orthanc
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from gen.models.block_autoencoder import BlockAutoencoder
from gen.models.cxr_encoder import CXREncoder
from gen.models.ssl_projection import SSLProjection
from gen.store.saving import save_components
from gen.training.caption_tokenizer import train_tokenizer
from gen.training.diffusion import DiffusionConfig, noise_schedule
from gen.training.text_encoder import TextEncoderConfig, build_text_encoder, prepare_tokenizer
from gen.training.unet import UNetConfig, build_unet

SIDE = 128
FIELDS = ("file", "split", "findings", "view", "age", "sex", "patient_id", "width", "height")

torch.set_num_threads(1)  # tiny networks are slower on more, and tests run beside others


@pytest.fixture(scope="session")
def tiny_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Components with random weights: 16 px images of 3 channels, 4x8x8 latents."""
    torch.manual_seed(0)
    sentences = ["a chest x-ray of a child with pneumonia", "no acute finding"] * 3
    tokenizer = train_tokenizer(sentences, tmp_path_factory.mktemp("tokenizer"), 650, 16)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    networks = {"vae": vae, "text_encoder": CLIPTextModel(text), "unet": unet}
    for network in networks.values():
        network.eval().requires_grad_(False)
    return {**networks, "tokenizer": tokenizer, "scheduler": scheduler}


@pytest.fixture
def tiny_folder(tiny_parts: dict[str, Any], tmp_path: Path) -> Path:
    """The tiny model as a folder in diffusers layout."""
    from pipelines.text_to_cxr import TextToCXRPipeline

    TextToCXRPipeline(**tiny_parts).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="session")
def orthanc_url() -> Iterator[str]:
    """The DICOMweb service of a PACS that lives as long as the tests."""
    if not has_orthanc():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with serve_orthanc() as url:
        yield url


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and four validation pictures: smooth noise, children and adults."""
    folder = tmp_path_factory.mktemp("radiographs")
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for i in range(10):
            source = "kermany" if i % 2 else "nih"
            name = f"images/{source}/{i}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name)
            row = {
                "file": name,
                "split": "train" if i < 6 else "val",
                "findings": "pneumonia|viral" if i % 2 else "No Finding",
                "patient_id": str(i),
                "width": SIDE,
                "height": SIDE,
            }
            writer.writerow(row)
    return folder


@pytest.fixture(scope="session")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region and two tiles to train on, pink with purple dots, and one of the test split."""
    folder = tmp_path_factory.mktemp("stained")
    rng = np.random.default_rng(0)
    fields = ("file", "split", "group", "findings")
    sizes = {"large/a.png": (200, 140), "tiles/b_0.png": (64, 64), "tiles/b_1.png": (40, 40)}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for name, (height, width) in {**sizes, "tiles/c.png": (64, 64)}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            pixels = np.full((height, width, 3), (220, 150, 190), np.uint8)
            dots = rng.random((height, width)) < 0.2
            pixels[dots] = (80, 40, 130)
            pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            split = "test" if name.endswith("c.png") else "train"
            writer.writerow({"file": name, "split": split, "group": "g", "findings": "stroma"})
    return folder


@pytest.fixture(scope="session")
def tiny_large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large images with a prior: patches of 32 pixels, 4 a cell, 8 dimensions, grids of 4 x 4."""
    loop = {"data": ".", "output": ".", "num_steps": 1, "batch_size": 1, "learning_rate": 1}
    root = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8, 3).save_pretrained(root / "encoder")
    unet = UNetConfig.model_validate(
        {**loop, "block_out_channels": (16, 16), "layers_per_block": 1}
    )
    text = TextEncoderConfig.model_validate(
        {**loop, "text_hidden_size": 16, "text_num_layers": 1, "max_length": 16, "vocab_size": 600}
    )
    tokenizer = prepare_tokenizer(text, root / "tokenizer", ["tumour epithelium", "stroma"])
    vae = BlockAutoencoder(
        block_size=4, latent_channels=4, in_channels=3, out_channels=3, context_channels=8,
        num_context_blocks=1, refine_channels=8, num_refine_blocks=1, grain=False,
        block_out_channels=(1, 1, 1),
    )  # fmt: skip
    vae.fit(torch.rand(20, 3, 32, 32) * 2 - 1)
    scheduler = noise_schedule(DiffusionConfig.model_validate(loop))
    components = {
        "vae": vae,
        "unet": build_unet(unet, 4, 32 // 4, 16),
        "projection": SSLProjection(8, 16, 2),
        "scheduler": scheduler,
        "prior": build_unet(unet, 8, 4, 16),
        "prior_scheduler": scheduler,
        "text_encoder": build_text_encoder(text, tokenizer),
        "tokenizer": tokenizer,
    }
    settings = {"encoder": str(root / "encoder"), "prior_pitch": 16}
    save_components(root / "model", components, "LargeImagePipeline", settings)
    return root / "model"
