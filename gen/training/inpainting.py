"""Train a text-to-image model to paint parts of healthy radiographs so that they fit the rest.

Its U-Net gets channels for the mask and the kept latents (Rombach et al. 2022, section 4.5, as
Stable Diffusion's inpainting models have them), whose weights start at zero: the first step is the
model as it was. It sees healthy images only, so that whatever it paints is healthy.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn

from gen.data.captions import canonical
from gen.denoising import fresh_scheduler, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.guidance.classifier_free import classifier_free
from gen.inpainting import blended_latents, context_of, shown
from gen.training.autoencoder import vae_factor
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
from gen.training.dataset import ChestXrays, read_chest_xrays, to_unit
from gen.training.diffusion import diffusion_loss
from gen.training.first_card import training_data, write_first_card
from gen.training.loop import LoopConfig, Report, Trained, descend, make_optimizer, run_loop
from gen.training.masks import MaskShares, draw_masks
from gen.training.pictures import save_grid
from gen.training.text_encoder import tokenize
from gen.types import ModelCall, Process

NUM_PREVIEWS = 8
LIMIT = "It paints parts of images; from text alone it draws nothing."


class InpaintingConfig(LoopConfig):
    """Config of `medphantom train inpainting`."""

    base_model: str = Field(
        description="Text-to-image model to start from, or inpainting model to go on from"
    )
    masks: MaskShares = Field(MaskShares(), description="How often each shape of mask is drawn")
    kept_weight: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Loss of a kept cell over a painted one's: what is shown is quickly learnt, but"
        " left to itself would mislead a sampler that does not put it back",
    )
    min_snr_gamma: float | None = Field(5.0, gt=0, description="Hang et al. 2023; null = off")
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(
        0.5, ge=0, le=1, description="0: images as they come; 1: children and adults equally often"
    )


def widen(unet: Any) -> None:
    """Give a U-Net of C channels, in place, the 1 + C of `context_of`, at first without effect.

    One that has them stays as it is.

    Raises:
        InvalidInput: it takes other channels beside the latents.
    """
    channels, wanted = unet.config.out_channels, 2 * unet.config.out_channels + 1
    old = unet.conv_in
    if old.in_channels == wanted:
        return
    if old.in_channels != channels:
        raise InvalidInput(
            f"base_model has a U-Net of {old.in_channels} channels, but must be of {channels}, as"
            f" for text alone, or of {wanted}, with mask and kept latents; choose another"
        )
    unet.conv_in = nn.Conv2d(wanted, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        unet.conv_in.weight.zero_()[:, :channels] = old.weight
        unet.conv_in.bias.copy_(old.bias)
    unet.register_to_config(in_channels=wanted)


def training_loss(
    networks: Networks,
    config: InpaintingConfig,
    latents: Tensor,
    masks: Tensor,
    token_ids: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """`diffusion_loss` of latents (N, C, h, w) that are shown where masks (N, 1, h, w) are 0."""
    condition = networks.text_encoder(token_ids).last_hidden_state
    context = context_of(latents, masks)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        output: Tensor = networks.unet(torch.cat([noisy, context], 1), timesteps, condition).sample
        return output

    weight = masks + config.kept_weight * (1 - masks)
    return diffusion_loss(
        networks.scheduler, predict, latents, config.min_snr_gamma, generator, weight
    )


def preview(
    networks: Networks, known: Tensor, masks: Tensor, prompts: list[str]
) -> Process[Tensor]:
    """Images (N, C, H, W) in about [-1, 1], painted where masks are 1: 20 steps, guidance 1.5."""
    ids = tokenize(networks.tokenizer, ["", *prompts], networks.tokenizer.model_max_length)
    states = yield ModelCall("text_encoder", (ids.to(known.device),))
    generators = make_generators(range(len(known)))
    scheduler = fresh_scheduler(networks.scheduler, 20)
    guided = classifier_free(call_unet, states[1:], states[:1], 1.5)
    predict = shown(guided, known, masks)
    latents = yield from blended_latents(known, masks, scheduler, predict, generators)
    return (yield ModelCall("decoder", (latents,)))


def draw_preview(
    networks: Networks, config: InpaintingConfig, data: ChestXrays, device: torch.device, path: Path
) -> None:
    """Save rows of an image, the same with its painted part left out, and as it was painted."""
    known = encode_images(networks.vae, data.images, device).to(device)
    generator = torch.Generator().manual_seed(config.seed)
    masks = draw_masks(config.masks, len(known), known.shape[2:], generator)
    prompts = [canonical(each) for each in data.labels]
    process = preview(networks, known, masks.to(device), prompts)
    painted = run(process, components_of(networks)).cpu()
    images = to_unit(data.images).expand_as(painted)
    pixels = torch.nn.functional.interpolate(masks, images.shape[2:])
    save_grid(torch.stack([images, images * (1 - pixels), painted], 1).flatten(0, 1), path, 6)


def train_inpainting(config: InpaintingConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished model."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    networks = load_networks(config.base_model)
    size = int(networks.unet.config.sample_size) * vae_factor(networks.vae)
    data = read_chest_xrays(config.data, "train", size, healthy=True)
    held_out = read_chest_xrays(config.data, "val", size, healthy=True)
    held_out = held_out.every(math.ceil(len(held_out) / NUM_PREVIEWS))
    widen(networks.unet)
    for module in (networks.vae, networks.unet, networks.text_encoder):
        module.to(device).requires_grad_(module is networks.unet)
    networks.unet.to(memory_format=torch.channels_last)  # convolutions are a fifth faster so
    latents = encode_images(networks.vae, data.images, device)
    average = copy.deepcopy(networks.unet).eval().requires_grad_(False)
    trained = Trained(networks.unet, make_optimizer(networks.unet, config), average)
    trained.module, trained.optimizer = accelerator.prepare(networks.unet, trained.optimizer)
    averaged = replace(networks, unet=average)
    weights = row_weights(data.labels, config.balance)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        rows = torch.multinomial(weights, config.batch_size, True, generator=generator)
        labels = [data.labels[row] for row in rows.tolist()]
        captions = draw_captions(labels, generator, config.caption_dropout)
        ids = tokenize(networks.tokenizer, captions, networks.tokenizer.model_max_length)
        clean = latents[rows].to(device)
        masks = draw_masks(config.masks, len(clean), clean.shape[2:], generator).to(device)
        with accelerator.autocast():
            loss = training_loss(networks, config, clean, masks, ids.to(device), generator)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    def sample(path: Path) -> None:
        draw_preview(averaged, config, held_out, device, path)

    run_loop(config, accelerator, {"model": trained}, step, sample, report)
    folder = config.output / "model"
    save_networks(averaged, folder)
    known = training_data(data.fields, config.data.name)
    write_first_card(folder, config, size, known, config.base_model, [LIMIT])
    return folder
