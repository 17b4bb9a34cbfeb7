"""The plainest rival: what lies outside the principal components of healthy pictures is disease."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from gen.anomaly.detections import Detections, residual_map
from gen.data.atomic import atomic_file
from gen.errors import InvalidInput

NUM_COMPONENTS = 64


@dataclass(frozen=True)
class PrincipalComponents:
    """A detector whose healthy picture is the nearest one in the span of K components.

    Args:
        mean: (S, S) in [-1, 1].
        components: (K, S, S), orthonormal.
        num_images: healthy pictures they were found in.
    """

    mean: Tensor
    components: Tensor
    num_images: int

    def restore(self, images: Tensor) -> Tensor:
        """The projections of images (N, 1, S, S) in [-1, 1], of the same shape and range."""
        if images.shape[1:] != (1, *self.mean.shape):
            raise InvalidInput(
                f"images have the shape {tuple(images.shape)}, but the components"
                f" {tuple(self.components.shape)}; resize the images"
            )
        basis = self.components.flatten(1)
        centred = (images.cpu().float() - self.mean).flatten(1)
        restored = (centred @ basis.T @ basis).view_as(images) + self.mean
        return restored.clamp(-1, 1)

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Detections:
        """See `gen.anomaly.detections.Detector`; seeds decide nothing."""
        healthy = self.restore(images)
        return Detections(residual_map(images, healthy), healthy, num_network_calls=0)

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        tensors = {
            "mean": self.mean,
            "components": self.components,
            "num_images": torch.tensor(self.num_images),
        }
        with atomic_file(file, overwrite=True) as stream:
            stream.write(save(tensors))

    @classmethod
    def load(cls, file: Path) -> "PrincipalComponents":
        """Read what `save` wrote."""
        tensors = load_file(file)
        return cls(tensors["mean"], tensors["components"], int(tensors["num_images"]))


def fit_components(
    images: Tensor, num_components: int = NUM_COMPONENTS, seed: int = 0
) -> PrincipalComponents:
    """Find the components of healthy pictures.

    Args:
        images: (N, 1, S, S) uint8.
        num_components: K, below N.
        seed: of the randomised solver (Halko et al. 2011).

    Raises:
        InvalidInput: there are too few pictures.
    """
    from sklearn.decomposition import PCA

    if not 0 < num_components < len(images):
        raise InvalidInput(
            f"num_components is {num_components}, but must be above 0 and below the number of"
            f" healthy pictures, {len(images)}"
        )
    rows = images.flatten(1).numpy().astype(np.float32) / 127.5 - 1
    found = PCA(num_components, copy=False, svd_solver="randomized", random_state=seed).fit(rows)
    side = images.shape[-1]
    mean, components = (
        torch.from_numpy(np.ascontiguousarray(each, np.float32))
        for each in (found.mean_, found.components_)
    )
    return PrincipalComponents(mean.view(side, side), components.view(-1, side, side), len(images))
