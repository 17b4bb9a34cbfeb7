"""Encoders of images: each sees the pixels it was trained on, after one resize of the original.

Elsewhere images are first made 299 pixels a side and then the encoder's size, or squashed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.data.transforms import fit
from gen.encoders.windows import ReadPixels
from gen.engine import run
from gen.errors import InvalidInput
from gen.reference_field import embed_grid
from gen.store.catalogue import ResolvedModel

_BATCH_PIXELS = 2**21  # 32 images of 256 pixels a side; a GPU gets eight times that
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as grey pictures are read from colour files


@dataclass(frozen=True)
class Encoder:
    """An image encoder. Called on whole pictures (N, C, S, S) in [-1, 1], it answers (N, D).

    Pictures have one channel or three: grey is repeated for a network of three, colour becomes
    luma for a network of one.

    Args:
        id: name and hash of its files: where ids are equal, features compare.
        side: of the square that the network sees, in pixels.
        shorter_side: what a picture's shorter side is resized to before the square is cut out.
        network: prepared pictures (N, channels, side, side) in [0, 1] on `device` -> features
            (N, D).
        device: where the network is.
        channels: of the network's input, 1 or 3.
        patch_network: prepared pictures, as for `network`, -> features of each patch (N, h, w, D),
            row-major from the top left; None if the network has none.
        fine_network: as `patch_network`, early features of smaller patches; None if there are none.
    """

    id: str
    side: int
    shorter_side: int
    network: Callable[[Tensor], Tensor]
    device: str
    channels: int = 1
    patch_network: Callable[[Tensor], Tensor] | None = None
    fine_network: Callable[[Tensor], Tensor] | None = None

    def prepare(
        self, pixels: NDArray[np.floating], orig_size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """The square (side, side) of an original (H, W) in [0, 1]: one resize, a centre crop.

        `orig_size` is the true (height, width) of a picture that was squashed.
        """
        return fit(pixels, self.shorter_side, orig_size)[self._middle, self._middle]

    def encode(self, prepared: Tensor) -> Tensor:
        """Features (N, D), float32 on the CPU, of prepared pictures (N, C, side, side).

        They can be differentiated if the pictures can.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and prepared.requires_grad):
            return self.network(self._match(prepared)).float().cpu()

    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures that somebody made square; of another size, they are resized.

        Raises:
            InvalidInput: images are not (N, 1, S, S) or (N, 3, S, S).
        """
        return self.encode(self._prepare_square(images))

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of unit length of pictures (N, C, S, S) in [-1, 1].

        Raises:
            InvalidInput: images are of another shape, or the features have no direction.
        """
        return self._of_unit_length(self(images))

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Embeddings (N, h, w, D) of unit length of the patches that the network cuts pictures in.

        Args:
            images: (N, C, S, S) in [-1, 1]. Of what is left after resizing and cropping, entry
                [n, i, j] is the patch in row i from the top and column j from the left.

        Raises:
            InvalidInput: images are of another shape, or the network has no patches.
        """
        if self.patch_network is None:
            raise InvalidInput(
                f"encoder is {self.id}, which has no features of patches; name a vision transformer"
            )
        return self._grid(self.patch_network, images)

    @torch.no_grad()
    def fine_tokens(self, images: Tensor) -> Tensor:
        """As `tokens`, of the smallest patches that the encoder tells apart."""
        if self.fine_network is None:
            return self.tokens(images)
        return self._grid(self.fine_network, images)

    def embed_grid(
        self, read: ReadPixels, height: int, width: int, pitch: float, field: int
    ) -> Tensor:
        """`gen.reference_field.embed_grid` by this encoder alone.

        Raises:
            InvalidInput: a length is not positive, or the features have no direction.
        """
        grid = embed_grid(read, height, width, pitch, field)
        return run(grid, {"embedder": self.embed}, self.batch_size)

    @property
    def batch_size(self) -> int:
        """How many pictures to encode at once."""
        budget = _BATCH_PIXELS * (1 if self.device == "cpu" else 8)
        return max(1, budget // self.side**2)

    def _grid(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        prepared = self._match(self._prepare_square(images))
        return self._of_unit_length(network(prepared).float().cpu())

    @property
    def _middle(self) -> slice:
        start = (self.shorter_side - self.side) // 2
        return slice(start, start + self.side)

    def _prepare_square(self, images: Tensor) -> Tensor:
        """Prepared pictures (N, C, side, side) in [0, 1] of square ones (N, C, S, S)."""
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise InvalidInput(
                f"images have the shape {tuple(images.shape)}, but must be (number, channels, side,"
                " side); cut squares out"
            )
        shape = (self.shorter_side, self.shorter_side)
        if images.shape[-2:] != shape:
            images = F.interpolate(images, shape, mode="bilinear", antialias=True)
        return images[..., self._middle, self._middle] / 2 + 0.5

    def _match(self, prepared: Tensor) -> Tensor:
        """Pictures (N, 1 or 3, side, side) on the device, with the channels of the network."""
        given = prepared.shape[1]
        if given not in (1, 3):
            raise InvalidInput(f"images have {given} channels, but must have 1 (grey) or 3 (RGB)")
        prepared = prepared.to(self.device)
        if given > self.channels:
            luma = torch.tensor(_LUMA, device=prepared.device).reshape(1, 3, 1, 1)
            return (prepared * luma).sum(1, keepdim=True)
        return prepared.expand(-1, self.channels, -1, -1)

    def _of_unit_length(self, features: Tensor) -> Tensor:
        """Features (..., D) over their lengths."""
        lengths = features.norm(dim=-1, keepdim=True)
        if not (lengths.isfinite() & (lengths > 0)).all():
            raise InvalidInput(
                f"encoder {self.id} answers zeros, NaN or infinity, which have no direction; fetch"
                " its weights again"
            )
        return features / lengths


def id_of(model: ResolvedModel) -> str:
    """Name of a model and the hash of its files, wherever they lie."""
    name = model.id.partition("@")[0] if str(model.path) != model.id else model.path.resolve().name
    return f"{name}@{model.weight_sha256[:16]}"
