"""How near an image lies to its prompt in the space of a CLIP-style model (Radford et al. 2021).

A cosine says little alone: any radiograph lies near any sentence about radiographs. Beside it
stands its floor, the same images with the other images' prompts; only the margin between the two
speaks of the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.intervals import Estimate
from gen.store.catalogue import resolve
from gen.store.loading import load_components
from gen.store.weight_files import read_object

# Of CLIP's own training images; a folder's preprocessor_config.json goes before it.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTextModel:
    """An image and a text encoder into one space, with what their inputs need."""

    network: Any
    tokenizer: Any
    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def embed_images(self, images: Tensor, batch_size: int = 32) -> NDArray[np.float64]:
        """Unit vectors (N, D) of uint8 images (N, 1, S, S), each resized once."""
        side = self.network.config.vision_config.image_size
        parts = []
        for batch in images.split(batch_size):
            grey = batch.float() / 255
            resized = F.interpolate(grey, (side, side), mode="bicubic", antialias=True)
            rgb = (resized.clamp(0, 1).expand(-1, 3, -1, -1) - self.mean) / self.std
            found = self.network.get_image_features(pixel_values=rgb.to(self.network.device))
            parts.append(_unit(found.pooler_output))
        return np.concatenate(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float64]:
        """Unit vectors (N, D) of texts, each cut where the encoder's context ends."""
        length = self.network.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[start : start + batch_size]),
                padding=True, truncation=True, max_length=length, return_tensors="pt",
            ).to(self.network.device)  # fmt: skip
            found = self.network.get_text_features(tokens.input_ids, tokens.attention_mask)
            parts.append(_unit(found.pooler_output))
        return np.concatenate(parts)


def _unit(features: Tensor) -> NDArray[np.float64]:
    return F.normalize(features.double(), dim=-1).cpu().numpy()


def load_image_text_model(model_id: str | Path, device: str = "cpu") -> ImageTextModel:
    """A CLIPModel with its tokenizer from a local folder; nothing is fetched.

    Raises:
        InvalidInput: the model does not embed both images and texts.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    parts = load_components(model_id)
    network = parts.get("model")
    if network is None or not hasattr(network, "get_text_features"):
        raise InvalidInput(
            f"image_text_model is {str(model_id)!r}, which does not embed texts and images;"
            " name a folder of a transformers CLIPModel with its tokenizer"
        )
    path = resolve(model_id).path / "preprocessor_config.json"
    said = read_object(path) if path.is_file() else {}
    mean, std = (
        torch.tensor(said.get(name, usual)).view(1, 3, 1, 1)
        for name, usual in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD))
    )
    return ImageTextModel(network.to(device), parts["tokenizer"], mean, std)


@dataclass(frozen=True)
class ImageTextScore:
    """Mean cosine of images with their own prompts and with others', and how far they lie apart."""

    num_images: int
    matched: Estimate
    shuffled: Estimate
    margin: Estimate


def image_text_score(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    prompts: Sequence[str],
    num_resamples: int = 500,
    seed: int = 0,
) -> ImageTextScore:
    """Compare each image with its prompt and with every other prompt; intervals by bootstrap.

    Args:
        images: unit vectors (N, D).
        texts: unit vectors (N, D) of the prompts, in the images' order.
        prompts: N; an image with the same prompt as another is no mismatch of it.
        num_resamples: draws of N images, with repetition.
        seed: of the draws.

    Raises:
        InvalidInput: the numbers differ, or all prompts are the same.
    """
    counts = {"images": len(images), "texts": len(texts), "prompts": len(prompts)}
    if len(set(counts.values())) != 1:
        raise InvalidInput(f"there are {counts}, but each image needs its prompt; give as many")
    matched = np.sum(images * texts, axis=1)
    shuffled = _cosines_with_others(images, texts, prompts)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(images), size=(num_resamples, len(images)))
    return ImageTextScore(
        len(images),
        *(_mean(values, rows) for values in (matched, shuffled, matched - shuffled)),
    )


def _cosines_with_others(
    images: NDArray[np.floating], texts: NDArray[np.floating], prompts: Sequence[str]
) -> NDArray[np.floating]:
    """Mean cosine (N,) of each image with the prompts of images that were asked another thing."""
    _, groups, sizes = np.unique(np.array(prompts), return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise InvalidInput(
            f"all {len(prompts)} prompts are the same, but a floor needs others; generate from"
            " several prompts"
        )
    sums = np.zeros((len(sizes), texts.shape[1]))
    np.add.at(sums, groups, texts)
    others = (sums.sum(0) - sums) / (len(prompts) - sizes)[:, None]
    cosines: NDArray[np.floating] = np.sum(images * others[groups], axis=1)
    return cosines


def _mean(values: NDArray[np.floating], rows: NDArray[np.intp]) -> Estimate:
    low, high = np.quantile(values[rows].mean(1), (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high))
