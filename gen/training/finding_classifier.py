"""Train a classifier of findings, view, sex and age that is to judge generated images.

Masked binary cross-entropy: an output that a row's labels do not speak of costs nothing there.
Rare findings are drawn more often and weigh more, both within bounds. Views of an image differ in
crop, angle, contrast and noise; never by a flip, since the heart lies left.
"""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.alignment import load_classifier, separations
from gen.metrics.features import features_of
from gen.models.cxr_classifier import OUTPUTS, CXRClassifier, statement_table
from gen.models.cxr_encoder import CXREncoder
from gen.store.loading import load_components
from gen.training.dataset import ChestXrays, read_chest_xrays, to_unit
from gen.training.loop import LoopConfig, Report, Trained, descend, make_optimizer, run_loop
from gen.training.pictures import save_grid
from gen.training.ssl_encoder import SSLEncoderConfig, draw_view


class FindingClassifierConfig(LoopConfig):
    """Config of `medphantom train finding-classifier`."""

    encoder: str = Field("cxr-encoder-mini", description="What to start from: id or folder")
    min_positives: int = Field(5, ge=1, description="Training images that an output must have")
    max_positive_weight: float = Field(8.0, ge=1, description="Largest weight of a rare positive")
    min_crop: float = Field(0.7, gt=0, le=1, description="Least area of a view")
    max_angle: float = Field(8.0, ge=0, description="Largest rotation in degrees")
    contrast: float = Field(0.3, ge=0, lt=1, description="Largest change of gain and of gamma")
    noise: float = Field(0.05, ge=0, description="Standard deviation of added noise")


def masked_loss(log_odds: Tensor, stated: Tensor, positive_weight: Tensor) -> Tensor:
    """Binary cross-entropy over what is stated, each row's mean counting alike.

    Labels of adults speak of four times as many outputs as those of children, and would otherwise
    have four times their weight.

    Args:
        log_odds: (N, K).
        stated: (N, K): 1 shown, 0 not shown, nan not spoken of.
        positive_weight: (K,), of the positives of each output.
    """
    known = ~stated.isnan()
    each = F.binary_cross_entropy_with_logits(
        log_odds, stated.nan_to_num(), pos_weight=positive_weight, reduction="none"
    )
    return ((each * known).sum(1) / known.sum(1).clamp(min=1)).mean()


def draw_weights(stated: Tensor) -> Tensor:
    """How often each row (N,) is drawn: as one over the root of its rarest positive's number."""
    counts = (stated == 1).sum(0).clamp(min=1).float()
    rarest = torch.where(stated == 1, counts, float("inf")).amin(1)
    # a row without a positive is as common as rows can be
    return rarest.clamp(max=len(stated)).rsqrt()


def positive_weights(stated: Tensor, weights: Tensor, largest: float) -> Tensor:
    """Negatives over positives (K,) as drawn with `weights` (N,), within [1 / largest, largest]."""
    positive = ((stated == 1) * weights[:, None]).sum(0)
    negative = ((stated == 0) * weights[:, None]).sum(0)
    return (negative / positive).nan_to_num(1.0).clamp(1 / largest, largest)


def outputs_of(data: ChestXrays, min_positives: int) -> tuple[str, ...]:
    """The outputs that images show, and do not show, often enough to be learnt.

    Raises:
        InvalidInput: there is none.
    """
    stated = statement_table(data.labels, OUTPUTS)
    fewest = np.minimum((stated == 1).sum(0), (stated == 0).sum(0))
    chosen = tuple(
        name for name, count in zip(OUTPUTS, fewest, strict=True) if count >= min_positives
    )
    if not chosen:
        raise InvalidInput(
            f"min_positives is {min_positives}, but the most that any output has of both kinds is"
            f" {fewest.max()}; lower it or give more images"
        )
    return chosen


def make_classifier(encoder_id: str, outputs: tuple[str, ...]) -> CXRClassifier:
    """A classifier on a trained encoder.

    Raises:
        InvalidInput: the model is no CXREncoder.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    encoder = load_components(encoder_id).get("model")
    if not isinstance(encoder, CXREncoder):
        raise InvalidInput(f"encoder is {encoder_id!r}, but must name a CXREncoder; try"
                           " cxr-encoder-mini")  # fmt: skip
    shape = encoder.config
    classifier = CXRClassifier(outputs, shape.sample_size, tuple(shape.widths), shape.feature_dim)
    classifier.encoder.load_state_dict(encoder.state_dict())
    return classifier


def train_finding_classifier(config: FindingClassifierConfig, report: Report) -> Path:
    """Train, or go on from the last checkpoint; returns the folder of the finished classifier."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    torch.manual_seed(config.seed)
    device = accelerator.device
    side = load_components(config.encoder)["model"].config.sample_size
    data = read_chest_xrays(config.data, "train", side)
    outputs = outputs_of(data, config.min_positives)
    classifier = make_classifier(config.encoder, outputs).to(device)
    average = copy.deepcopy(classifier).eval().requires_grad_(False)
    trained = Trained(classifier, make_optimizer(classifier, config), average)
    trained.module, trained.optimizer = accelerator.prepare(classifier, trained.optimizer)
    stated = torch.from_numpy(statement_table(data.labels, outputs))
    weights = draw_weights(stated)
    positive_weight = positive_weights(stated, weights, config.max_positive_weight).to(device)
    augmentation = _augmentation(config)

    def views(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.multinomial(weights, config.batch_size, True, generator=generator)
        images = to_unit(data.images[rows]).to(device)
        return draw_view(images, augmentation, generator), stated[rows].to(device)

    def step(number: int, generator: torch.Generator) -> dict[str, float]:
        images, wanted = views(generator)
        with accelerator.autocast():
            log_odds = trained.module(images)
        loss = masked_loss(log_odds.float(), wanted, positive_weight)
        descend(accelerator, trained, loss, config, number)
        return {"loss": loss.item()}

    def sample(path: Path) -> None:
        save_grid(views(torch.Generator().manual_seed(config.seed))[0][:16].cpu(), path)

    run_loop(config, accelerator, {"model": trained}, step, sample, report)
    return _finish(config, average)


def _augmentation(config: FindingClassifierConfig) -> SSLEncoderConfig:
    shared = set(SSLEncoderConfig.model_fields) & set(FindingClassifierConfig.model_fields)
    return SSLEncoderConfig.model_validate(config.model_dump(include=shared))


def _finish(config: FindingClassifierConfig, classifier: nn.Module) -> Path:
    """Save the classifier, and beside it how well it tells images of `val`."""
    folder = config.output / "model"
    classifier.half().save_pretrained(folder)  # type: ignore[operator]
    saved = load_classifier(folder)
    real = read_chest_xrays(config.data, "val", saved.encoder.side)
    probabilities = features_of(real.images, saved.encoder)
    figures = {
        "images_seen": config.num_steps * config.batch_size,
        "split": "val",
        "num_images": len(real),
        "separations": [
            asdict(each) for each in separations(probabilities, real.labels, saved.outputs)
        ],
    }
    (config.output / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    return folder
