"""Grids of pictures to look at while training."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_grid(images: Tensor, path: Path, num_columns: int | None = None) -> None:
    """Save images (N, 1 or 3, H, W) in [-1, 1] side by side; nearly square by default."""
    levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = levels.permute(0, 2, 3, 1).squeeze(-1).numpy()
    columns = num_columns or math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    height, width, *channels = pixels.shape[1:]
    sheet = np.zeros((rows * height, columns * width, *channels), np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
