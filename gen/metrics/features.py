"""Features of images by any encoder of the model store."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.images import read_image
from gen.data.transforms import fit
from gen.errors import InvalidInput, MedphantomError
from gen.store.loading import load_components

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".dcm"})
Encoder = Callable[[Tensor], Tensor]
"""Images (N, 1, S, S) in [-1, 1] -> features (N, D)."""

# What transformers' image encoders of the DINO family were trained with.
_RGB_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_RGB_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def load_encoder(model_id: str | Path, device: str = "cpu") -> Encoder:
    """An encoder by its id or folder: one of ours, or a transformers vision model.

    Raises:
        InvalidInput: the model takes no images.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    parts = load_components(model_id)
    network = parts.get("model")
    if network is None:
        raise InvalidInput(
            f"encoder is {str(model_id)!r}, which is a pipeline; name an encoder, such as"
            " cxr-encoder-mini"
        )
    network = network.to(device).eval()
    if hasattr(network.config, "feature_dim"):
        return lambda images: network(images.to(device)).float().cpu()
    side = int(getattr(network.config, "image_size", 224))

    def transformer(images: Tensor) -> Tensor:
        shape = (side, side)
        resized = torch.nn.functional.interpolate(images, shape, mode="bilinear", antialias=True)
        rgb = ((resized / 2 + 0.5).expand(-1, 3, -1, -1) - _RGB_MEAN) / _RGB_STD
        return network(rgb.to(device)).pooler_output.float().cpu()

    return transformer


@torch.no_grad()
def features_of(
    images: Tensor,
    encoder: Encoder,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Features (N, D) of uint8 images (N, 1, S, S)."""
    parts = []
    for batch in images.split(batch_size):
        parts.append(encoder(batch.float() / 127.5 - 1).double().numpy())
        report(len(batch))
    return np.concatenate(parts)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder and below, in order, without contact sheets.

    Raises:
        InvalidInput: there is none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICTURES and path.name != "grid.png"
    ]
    if not found:
        raise InvalidInput(
            f"{folder} holds no picture; name a folder with {', '.join(sorted(PICTURES))} files"
        )
    return found


def read_pictures(
    paths: Sequence[Path], size: int, report: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, list[str]]:
    """Pictures (N, 1, size, size) uint8, and a line for each that could not be read."""
    images: list[NDArray[np.uint8]] = []
    errors: list[str] = []
    for path in paths:
        try:
            pixels = fit(read_image(path).pixels, size)
            images.append(np.round(pixels * 255).astype(np.uint8))
        except MedphantomError as error:
            errors.append(str(error))
        report(1)
    if not images:
        raise InvalidInput(f"none of {len(paths)} pictures could be read; the first: {errors[0]}")
    return torch.from_numpy(np.stack(images))[:, None], errors
