"""Train diffusion of grids of embeddings from text: what a large image shall look like, and where.

The second model of Graikos et al. 2024 (arXiv 2312.07330, section 3.4), which they describe and did
not release, and of ZoomLDM (arXiv 2411.16969, section 3.3). It is put beside the patch model whose
embeddings it makes.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from gen.data.tissue_words import shares, words_for
from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.store.loading import load_components
from gen.store.saving import save_components
from gen.store.weight_files import read_object
from gen.training.diffusion import DiffusionConfig, diffusion_loss, noise_schedule
from gen.training.first_card import training_data, write_first_card
from gen.training.loop import Report, Trained, descend, make_optimizer, run_loop
from gen.training.text_encoder import (
    TextEncoderConfig,
    build_text_encoder,
    prepare_tokenizer,
    tokenize,
)
from gen.training.tissue import TissueConfig, grow, read_regions, rescale, turn
from gen.training.unet import UNetConfig, build_unet


class EmbeddingPriorConfig(DiffusionConfig, UNetConfig, TextEncoderConfig):
    """Config of `medphantom train embedding-prior`."""

    tissue: TissueConfig
    base_model: Path = Field(description="Folder of `medphantom train ssl-conditioned`")
    patch_size: int = Field(128, ge=8, description="Pixels that an embedding is of")
    pitch: int = Field(64, ge=8, description="Pixels between neighbours of a grid")
    grid_size: int = Field(8, ge=2, description="Side of the grids that are learnt")
    names: dict[str, str] = Field(
        default_factory=dict, description="Pattern of files to words for what they show"
    )
    caption_dropout: float = Field(0.1, ge=0, lt=1)


@dataclass(frozen=True)
class EmbeddedRegion:
    """`embeddings` (D, rows, cols) of unit length and `shares` (2, rows, cols) of nuclei and glass.

    `names` are words for the whole region, `fields` its row of the manifest.
    """

    embeddings: Tensor
    shares: Tensor
    names: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)

    def crop(self, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Embeddings (D, side, side) and shares (2,) at a random place."""
        rows, columns = (length - side + 1 for length in self.embeddings.shape[1:])
        top = int(torch.randint(rows, (), generator=generator))
        left = int(torch.randint(columns, (), generator=generator))
        place = slice(None), slice(top, top + side), slice(left, left + side)
        return self.embeddings[place], self.shares[place].mean(dim=(1, 2))


@dataclass(frozen=True)
class Networks:
    """What the prior is made of."""

    prior: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def embed_regions(config: EmbeddingPriorConfig, encoder: Any) -> list[EmbeddedRegion]:
    """Every region at every magnification where it fills a grid, mirrored at its edges if needed.

    Raises:
        InvalidInput: no region is usable.
    """
    embedded = []
    for region in read_regions(config.data, "train", config.tissue.spacings):
        for magnification in config.tissue.magnifications:
            scaled = rescale(region, magnification)
            if scaled is not None:
                pixels = grow(scaled.pixels, config.grid_size * config.pitch)
                names = names_of(region.fields, config.names)
                one = embed_region(pixels, names, encoder, config)
                embedded.append(replace(one, fields=region.fields))
    if not embedded:
        raise InvalidInput("no region is as fine as tissue.magnifications asks; name coarser ones")
    return embedded


def embed_region(
    pixels: NDArray[np.uint8], names: tuple[str, ...], encoder: Any, config: EmbeddingPriorConfig
) -> EmbeddedRegion:
    """Embeddings of patches centred `pitch` pixels apart, and the shares of each cell."""
    height, width = pixels.shape[:2]

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        return pixels[top : top + height, left : left + width]

    grid = encoder.embed_grid(read, height, width, config.pitch, config.patch_size)
    cells = [
        [
            shares(read(row * config.pitch, column * config.pitch, config.pitch, config.pitch))
            for column in range(grid.shape[1])
        ]
        for row in range(grid.shape[0])
    ]
    return EmbeddedRegion(grid.permute(2, 0, 1), torch.tensor(cells).permute(2, 0, 1), names)


def names_of(fields: dict[str, str], names: dict[str, str]) -> tuple[str, ...]:
    """Words for a region: its findings, and those of the first pattern that fits its file."""
    words = [word for word in fields["findings"].split("|") if word]
    words += [word for pattern, word in names.items() if fnmatch(fields["file"], pattern)][:1]
    return tuple(words)


def phrase(names: Sequence[str], nuclei: float, glass: float, rng: random.Random) -> str:
    """A caption: some of what is known, in any order."""
    words = [*names, *words_for(nuclei, glass)]
    rng.shuffle(words)
    kept = words[: rng.randint(1, len(words))]
    return ", ".join(["H&E stained tissue", *kept] if rng.random() < 0.5 else kept)


def build_networks(config: EmbeddingPriorConfig, regions: list[EmbeddedRegion]) -> Networks:
    """A new prior with its text encoder."""
    rng = random.Random(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    captions = []
    for region in regions:
        for _ in range(20):
            nuclei, glass = region.crop(config.grid_size, generator)[1].tolist()
            captions.append(phrase(region.names, nuclei, glass, rng))
    tokenizer = prepare_tokenizer(config, config.output / "tokenizer", captions)
    dim = len(regions[0].embeddings)
    prior = build_unet(config, dim, config.grid_size, config.text_hidden_size)
    return Networks(prior, build_text_encoder(config, tokenizer), tokenizer, noise_schedule(config))


def draw(
    regions: list[EmbeddedRegion], config: EmbeddingPriorConfig, generator: torch.Generator
) -> tuple[Tensor, list[str]]:
    """A batch of grids (N, D, S, S) of about unit variance, and a caption of each."""
    weights = torch.tensor([region.embeddings[0].numel() ** 0.5 for region in regions])
    rows = torch.multinomial(weights, config.batch_size, True, generator=generator)
    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
    grids, captions = [], []
    for row in rows.tolist():
        grid, share = regions[row].crop(config.grid_size, generator)
        grids.append(grid)
        dropped = rng.random() < config.caption_dropout
        nuclei, glass = share.tolist()
        captions.append("" if dropped else phrase(regions[row].names, nuclei, glass, rng))
    stacked = turn(torch.stack(grids), generator)
    return stacked * stacked.shape[1] ** 0.5, captions


def training_loss(
    networks: Networks,
    config: EmbeddingPriorConfig,
    grids: Tensor,
    captions: list[str],
    generator: torch.Generator,
) -> Tensor:
    """`diffusion_loss` of grids (N, D, S, S) under their captions."""
    ids = tokenize(networks.tokenizer, captions, config.max_length).to(grids.device)
    condition = networks.text_encoder(ids).last_hidden_state

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        output: Tensor = networks.prior(noisy, timesteps, condition).sample
        return output

    return diffusion_loss(networks.scheduler, predict, grids, config.min_snr_gamma, generator)


def train_embedding_prior(config: EmbeddingPriorConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder with both models."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    encoder_id = read_object(config.base_model / "model_index.json").get("encoder")
    if not isinstance(encoder_id, str):
        raise InvalidInput(
            f"base_model is {config.base_model}, whose model_index.json names no encoder; name a"
            " folder that `medphantom train ssl-conditioned` wrote"
        )
    regions = embed_regions(config, load_encoder(encoder_id, str(device)))
    networks = build_networks(config, regions)
    parts = nn.ModuleDict({"prior": networks.prior, "text_encoder": networks.text_encoder})
    parts.to(device)
    average = copy.deepcopy(parts).eval().requires_grad_(False)
    trained = Trained(parts, make_optimizer(parts, config), average)
    trained.module, trained.optimizer = accelerator.prepare(parts, trained.optimizer)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        grids, captions = draw(regions, config, generator)
        with accelerator.autocast():
            loss = training_loss(networks, config, grids.to(device), captions, generator)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    run_loop(config, accelerator, {"model": trained}, step, lambda path: None, report)
    averaged = Networks(
        average["prior"], average["text_encoder"], networks.tokenizer, networks.scheduler
    )
    folder = save_model(averaged, config, encoder_id)
    known = training_data([region.fields for region in regions], config.data.name)
    write_first_card(
        folder, config, config.patch_size, known, config.base_model,
        task="embedding-to-image", modality="SM",
    )  # fmt: skip
    return folder


def save_model(networks: Networks, config: EmbeddingPriorConfig, encoder_id: str) -> Path:
    """Write a folder with the patch model and its prior."""
    folder = config.output / "model"
    base = load_components(config.base_model)
    for name in ("vae", "unet", "projection"):
        base[name].half()
    components = {
        **base,
        "prior": networks.prior.half(),
        "prior_scheduler": networks.scheduler,
        "text_encoder": networks.text_encoder.half(),
        "tokenizer": networks.tokenizer,
    }
    settings: dict[str, str | float] = {"encoder": encoder_id, "prior_pitch": config.pitch}
    save_components(folder, components, "LargeImagePipeline", settings)
    return folder
