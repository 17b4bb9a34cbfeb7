"""Grids of pictures to look at while training."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def save_grid(images: Tensor, path: Path, num_columns: int | None = None) -> None:
    """Save images (N, C, H, W) in [-1, 1] side by side as a grey PNG; nearly square by default."""
    pixels = ((images.float().clamp(-1, 1).mean(1) + 1) * 127.5).round().numpy().astype(np.uint8)
    columns = num_columns or math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    height, width = pixels.shape[1:]
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
