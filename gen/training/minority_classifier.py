"""Train what tells from noisy latents how rare the image behind them is.

Um et al. 2024 (arXiv 2301.12334, section 4.2): minority scores are cut at their quantiles into
ordinal classes, and a classifier learns them from latents at every noise level. It is put beside
the model whose latents it sees.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gen.data.minority_table import read_minority_scores
from gen.errors import InvalidInput
from gen.models.minority_classifier import MinorityClassifier, classes_of
from gen.noising import Noising
from gen.store.card import TrainingData
from gen.store.loading import load_components
from gen.store.saving import save_components
from gen.training.autoencoder import vae_factor
from gen.training.captioned import encode_images
from gen.training.dataset import read_chest_xrays
from gen.training.first_card import UNKNOWN, write_first_card
from gen.training.loop import LoopConfig, Report, Trained, descend, make_optimizer, run_loop
from gen.training.text_encoder import tokenize

HOLD_OUT = 20  # every so manieth image, of all classes alike, is not trained on
CHECKED_LEVELS = (0.2, 0.4, 0.6, 0.8)  # of noise, at which the classifier is judged


class MinorityClassifierConfig(LoopConfig):
    """Config of `medphantom train minority-classifier`."""

    base_model: str = Field(description="Text-to-image model: id or folder")
    scores: Path = Field(description="Table that `medphantom train minority-scores` wrote")
    within: Literal["group", "all"] = Field(
        "group", description="Whose quantiles are learnt: rare for what it shows, or rare at all"
    )
    num_classes: int = Field(20, ge=2, description="Quantile classes")
    widths: tuple[int, ...] = Field((32, 64, 64), min_length=1)
    caption_dropout: float = Field(0.1, ge=0, lt=1)


@dataclass(frozen=True)
class Scored:
    """`latents` (N, c, h, w), conditions (N, T, D) and quantiles (N,) of images."""

    latents: Tensor
    condition: Tensor
    quantiles: Tensor

    def rows(self, chosen: Tensor) -> "Scored":
        """Some of them."""
        return Scored(self.latents[chosen], self.condition[chosen], self.quantiles[chosen])


def read_scored(config: MinorityClassifierConfig, parts: dict[str, Any], device: Any) -> Scored:
    """The images that have a score, as latents under their prompts.

    Raises:
        InvalidInput: fewer images than classes have a score.
    """
    in_group = config.within == "group"
    quantiles = {
        row.file: row.group_quantile if in_group else row.quantile
        for row in read_minority_scores(config.scores)
    }
    size = int(parts["unet"].config.sample_size) * vae_factor(parts["vae"])
    data = read_chest_xrays(config.data, "train", size)
    chosen = [i for i, row in enumerate(data.fields) if row["file"] in quantiles]
    if len(chosen) < config.num_classes:
        raise InvalidInput(
            f"num_classes is {config.num_classes}, but only {len(chosen)} images of {config.data}"
            f" are in {config.scores}; score that data, or take fewer classes"
        )
    latents = encode_images(parts["vae"], data.images[chosen], device)
    found = torch.tensor([quantiles[data.fields[i]["file"]] for i in chosen])
    prompts = [data.fields[i]["prompt"] for i in chosen]
    return Scored(latents, mean_states(prompts, parts, device), found)


@torch.no_grad()
def mean_states(prompts: list[str], parts: dict[str, Any], device: Any) -> Tensor:
    """The text encoder's means (N, 1, D) over the tokens of prompts."""
    length = parts["tokenizer"].model_max_length
    states = []
    for start in range(0, len(prompts), 64):
        ids = tokenize(parts["tokenizer"], prompts[start : start + 64], length)
        states.append(parts["text_encoder"](ids.to(device))[0].mean(1, keepdim=True).cpu())
    return torch.cat(states)


def train_minority_classifier(config: MinorityClassifierConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder with the model and it."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    parts = load_components(config.base_model)
    for name in ("vae", "text_encoder"):
        parts[name].float().to(device)
    scored = read_scored(config, parts, device)
    null = mean_states([""], parts, device)
    noising = Noising(parts["scheduler"])
    network = MinorityClassifier(
        scored.latents.shape[1], config.num_classes, config.widths, scored.condition.shape[2]
    ).to(device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    trained = Trained(network, make_optimizer(network, config), average)
    trained.module, trained.optimizer = accelerator.prepare(network, trained.optimizer)
    held_out, shown = hold_out(scored.quantiles)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        rows = shown[torch.randint(len(shown), (config.batch_size,), generator=generator)]
        batch = scored.rows(rows)
        dropped = torch.rand(len(rows), 1, 1, generator=generator) < config.caption_dropout
        condition = torch.where(dropped, null, batch.condition)
        noise = torch.randn(batch.latents.shape, generator=generator)
        times = torch.randint(len(noising), (len(rows),), generator=generator)
        noisy = noising.add(batch.latents, noise, times)
        with accelerator.autocast():
            log_odds = trained.module(noisy.to(device), times.to(device), condition.to(device))
        wanted = classes_of(batch.quantiles, config.num_classes).to(device)
        loss = F.cross_entropy(log_odds.float(), wanted)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    run_loop(config, accelerator, {"classifier": trained}, step, lambda path: None, report)
    figures = judge(average, scored.rows(held_out), noising, config.seed)
    (config.output / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    folder = save_model(average, config, parts)
    size = int(parts["unet"].config.sample_size) * vae_factor(parts["vae"])
    known = TrainingData(name=config.data.name, licence=UNKNOWN, images=len(shown))
    write_first_card(folder, config, size, [known], config.base_model)
    return folder


def hold_out(quantiles: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that are not trained on, of all quantiles alike, and those that are."""
    order = quantiles.argsort()
    held_out = torch.arange(len(order)) % HOLD_OUT == HOLD_OUT // 2
    return order[held_out], order[~held_out]


@torch.no_grad()
def judge(
    network: MinorityClassifier, scored: Scored, noising: Noising, seed: int
) -> dict[str, Any]:
    """Rank correlation of held-out quantiles with the expected class, by the level of noise."""
    ranks = torch.arange(network.config.num_classes).float()
    figures = {}
    for level in CHECKED_LEVELS:
        generator = torch.Generator().manual_seed(seed)
        time = torch.tensor(level * len(noising)).round()
        noise = torch.randn(scored.latents.shape, generator=generator)
        noisy = noising.add(scored.latents, noise, time).to(network.device)
        times = time.expand(len(noisy)).to(network.device)
        odds = network(noisy, times, scored.condition.to(network.device))
        expected = odds.float().cpu().softmax(1) @ ranks
        pair = torch.stack([expected.argsort().argsort(), scored.quantiles.argsort().argsort()])
        figures[str(level)] = float(torch.corrcoef(pair.float())[0, 1])
    return {"held_out_images": len(scored.latents), "rank_correlation_at_noise_level": figures}


def save_model(
    network: MinorityClassifier, config: MinorityClassifierConfig, parts: dict[str, Any]
) -> Path:
    """Write a folder with the model and its classifier."""
    folder = config.output / "model"
    for name in ("vae", "unet", "text_encoder"):
        parts[name].half()
    components = {**parts, "minority_classifier": network.half()}
    save_components(folder, components, "TextToCXRPipeline")
    return folder
