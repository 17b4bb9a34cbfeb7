"""Train latent diffusion from captions, in RoentGen's modes (arXiv 2211.12737).

`train` names what learns: the U-Net alone; the U-Net and the text encoder (RoentGen's best); the
U-Net with a frozen, swapped text encoder; or LoRA adapters. The start is a Stable Diffusion
folder (`base_model`) or nothing at all, with an autoencoder of our own.
"""

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from pydantic import Field
from torch import Tensor, nn

from gen.data.captions import caption
from gen.denoising import denoise, draw_noise, fresh_scheduler, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.classifier_free import classifier_free
from gen.store.loading import load_components
from gen.training.autoencoder import load_autoencoder, vae_factor
from gen.training.captioned import (
    Networks,
    call_unet,
    components_of,
    draw_captions,
    encode_images,
    load_networks,
    row_weights,
    save_networks,
)
from gen.training.dataset import ChestXrays, read_chest_xrays
from gen.training.diffusion import DiffusionConfig, diffusion_loss, noise_schedule
from gen.training.first_card import training_data, write_first_card
from gen.training.loop import Report, Trained, descend, make_optimizer, run_loop
from gen.training.pictures import save_grid
from gen.training.text_encoder import (
    TextEncoderConfig,
    build_text_encoder,
    prepare_tokenizer,
    tokenize,
)
from gen.training.unet import UNetConfig, build_unet
from gen.types import ModelCall, Process

PREVIEW_PROMPTS = (
    "normal chest x-ray of a young child",
    "chest x-ray of a young child with pneumonia",
    "posteroanterior chest radiograph of an adult man, no acute finding",
    "chest radiograph of an adult with covid-19 pneumonia",
)


class TextToImageConfig(DiffusionConfig, UNetConfig, TextEncoderConfig):
    """Config of `medphantom train text-to-image`."""

    train: Literal["unet", "unet+text_encoder", "frozen_text_encoder", "lora"] = "unet+text_encoder"
    base_model: str | None = Field(None, description="Stable Diffusion folder or id to start from")
    autoencoder: Path | None = Field(None, description="Folder of the autoencoder, from scratch")
    text_encoder: str | None = Field(None, description="Model whose text encoder is swapped in")
    image_size: int = Field(256, ge=8)
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(
        0.5, ge=0, le=1, description="0: images as they come; 1: groups of labels equally often"
    )
    lora_rank: int = Field(8, ge=1)


def prepare_networks(config: TextToImageConfig, data: ChestXrays) -> Networks:
    """From `base_model`, or from scratch around `autoencoder`.

    Raises:
        InvalidInput: neither is given.
    """
    if config.base_model is not None:
        networks = load_networks(config.base_model)
        if config.text_encoder is None:
            return networks
        other = load_components(config.text_encoder)
        return replace(networks, text_encoder=other["text_encoder"], tokenizer=other["tokenizer"])
    if config.autoencoder is None:
        raise InvalidInput(
            "base_model and autoencoder are both missing; name a Stable Diffusion folder as"
            " base_model, or as autoencoder the folder that `medphantom train autoencoder` wrote"
        )
    vae = load_autoencoder(config.autoencoder)
    rng = random.Random(config.seed)
    captions = [caption(each, rng) for each in data.labels for _ in range(20)]
    tokenizer = prepare_tokenizer(config, config.output / "tokenizer", captions)
    size = config.image_size // vae_factor(vae)
    unet = build_unet(config, vae.config.latent_channels, size, config.text_hidden_size)
    return Networks(
        vae, unet, build_text_encoder(config, tokenizer), tokenizer, noise_schedule(config)
    )


def training_loss(
    networks: Networks,
    config: TextToImageConfig,
    latents: Tensor,
    token_ids: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Weighted squared error of the predicted quantity at one random timestep an image."""
    condition = networks.text_encoder(token_ids).last_hidden_state

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        output: Tensor = networks.unet(noisy, timesteps, condition).sample
        return output

    return diffusion_loss(networks.scheduler, predict, latents, config.min_snr_gamma, generator)


def trainable_parts(networks: Networks, config: TextToImageConfig) -> nn.ModuleDict:
    """Freeze what the mode leaves alone and return what learns."""
    for module in (networks.vae, networks.unet, networks.text_encoder):
        module.requires_grad_(False)
    if config.train == "lora":
        adapter = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_rank,
            init_lora_weights="gaussian",
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
        )
        networks.unet.add_adapter(adapter)
        return nn.ModuleDict({"unet": networks.unet})
    networks.unet.requires_grad_(True)
    parts = {"unet": networks.unet}
    if config.train == "unet+text_encoder":
        networks.text_encoder.requires_grad_(True)
        parts["text_encoder"] = networks.text_encoder
    return nn.ModuleDict(parts)


def preview(
    networks: Networks, max_length: int, device: torch.device, prompts: tuple[str, ...]
) -> Process[Tensor]:
    """Two images a prompt, 20 steps, guidance 3: (2N, C, H, W) in about [-1, 1]."""
    doubled = [prompt for prompt in prompts for _ in range(2)]
    ids = tokenize(networks.tokenizer, ["", *doubled], max_length).to(device)
    states = yield ModelCall("text_encoder", (ids,))
    null, condition = states[:1], states[1:]
    generators = make_generators(range(len(doubled)))
    scheduler = fresh_scheduler(networks.scheduler, 20)
    size = networks.unet.config.sample_size
    shape = (networks.unet.config.in_channels, size, size)
    latents = draw_noise(shape, generators).to(device) * scheduler.init_noise_sigma

    guided = classifier_free(call_unet, condition, null, 3.0)
    latents = yield from denoise(latents, scheduler, guided, generators)
    return (yield ModelCall("decoder", (latents,)))


def draw_preview(networks: Networks, max_length: int, device: torch.device, path: Path) -> None:
    """Sample `PREVIEW_PROMPTS` and save the grid."""
    process = preview(networks, max_length, device, PREVIEW_PROMPTS)
    save_grid(run(process, components_of(networks)).cpu(), path)


def train_text_to_image(config: TextToImageConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished model."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    data = read_chest_xrays(config.data, "train", config.image_size)
    networks = prepare_networks(config, data)
    for module in (networks.vae, networks.unet, networks.text_encoder):
        module.to(device)
    latents = encode_images(networks.vae, data.images, device)
    parts = trainable_parts(networks, config)
    average = None if config.train == "lora" else copy.deepcopy(parts).eval().requires_grad_(False)
    trained = Trained(parts, make_optimizer(parts, config), average)
    trained.module, trained.optimizer = accelerator.prepare(parts, trained.optimizer)
    averaged = networks if average is None else replace(networks, **dict(average.items()))
    weights = row_weights(data.labels, config.balance)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        rows = torch.multinomial(weights, config.batch_size, True, generator=generator)
        labels = [data.labels[row] for row in rows.tolist()]
        captions = draw_captions(labels, generator, config.caption_dropout)
        ids = tokenize(networks.tokenizer, captions, config.max_length).to(device)
        with accelerator.autocast():
            loss = training_loss(networks, config, latents[rows].to(device), ids, generator)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    def sample(path: Path) -> None:
        draw_preview(averaged, config.max_length, device, path)

    run_loop(config, accelerator, {"model": trained}, step, sample, report)
    return save_model(averaged, config, data)


def save_model(networks: Networks, config: TextToImageConfig, data: ChestXrays) -> Path:
    """Write the diffusers folder, or the adapter alone for LoRA."""
    folder = config.output / "model"
    if config.train == "lora":
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(networks.unet))
        StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=layers)
        return folder
    save_networks(networks, folder)
    known = training_data(data.fields, config.data.name)
    write_first_card(folder, config, config.image_size, known, config.base_model)
    return folder
