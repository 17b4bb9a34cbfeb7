"""A small network that says what a radiograph shows, and what labels say about its outputs."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gen.data.captions import NORMAL, PHRASES, Labels
from gen.models.cxr_encoder import CXREncoder

KINDS_OF_PNEUMONIA = ("Bacterial pneumonia", "Viral pneumonia")
# each of a label set that names nothing else
_ALONE = (*KINDS_OF_PNEUMONIA, "COVID-19", "Pneumocystis", "ARDS")
_CHESTXRAY14 = tuple(name for name in PHRASES if name not in (NORMAL, *_ALONE))
AGE_BANDS = {"under 40": (0.0, 40.0), "40 to 60": (40.0, 60.0), "over 60": (60.0, float("inf"))}
OUTPUTS = (*PHRASES, "PA", "female", "child", *AGE_BANDS)
"""All that a classifier can be asked; what stands against PA is AP, against child adult."""


class CXRClassifier(ModelMixin, ConfigMixin):
    """Images (N, 1, S, S) in [-1, 1], any S, to log-odds (N, K) of `config.outputs`, in order.

    The outputs do not exclude each other. Images are resized once, antialiased, to `sample_size`.
    """

    @register_to_config
    def __init__(
        self,
        outputs: tuple[str, ...] = OUTPUTS,
        sample_size: int = 128,
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        feature_dim: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = CXREncoder(sample_size, widths, feature_dim)
        self.head = nn.Linear(feature_dim, len(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds (N, K) of images (N, 1, S, S) in [-1, 1]."""
        log_odds: Tensor = self.head(F.silu(self.encoder(x)))
        return log_odds

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) on the CPU, for `gen.metrics.features.features_of`."""
        return self(x.to(self.device, self.dtype)).sigmoid().float().cpu()


def statements(labels: Labels) -> dict[str, bool]:
    """What labels say about the outputs, by name; an output they do not speak of is left out."""
    said = _findings(labels)
    said["child"] = labels.child
    if labels.view is not None:
        said["PA"] = labels.view == "PA"
    if labels.sex is not None:
        said["female"] = labels.sex == "F"
    if labels.age is not None and not labels.child:
        said |= {name: low <= labels.age < high for name, (low, high) in AGE_BANDS.items()}
    return said


def _findings(labels: Labels) -> dict[str, bool]:
    """Labels of adults list all of ChestX-ray14, those of children pneumonia and its kinds only."""
    found = set(labels.findings)
    if found.intersection(KINDS_OF_PNEUMONIA):
        found.add("Pneumonia")
    spoken_of = {NORMAL, *found}
    if labels.child:
        spoken_of.update(("Pneumonia", *KINDS_OF_PNEUMONIA))
    elif found.isdisjoint(_ALONE):
        spoken_of.update((*_CHESTXRAY14, "COVID-19"))
    elif found.intersection(KINDS_OF_PNEUMONIA):
        spoken_of.update(KINDS_OF_PNEUMONIA)
    if "Pneumonia" in labels.findings:  # of which kind is not said
        spoken_of -= {*_ALONE} - found
    return {name: name in found for name in PHRASES if name in spoken_of}


def statement_table(labels: Sequence[Labels], outputs: Sequence[str]) -> NDArray[np.float32]:
    """Statements (N, K): 1 shown, 0 not shown, nan not spoken of."""
    said = [statements(each) for each in labels]
    rows = [[float(row.get(name, np.nan)) for name in outputs] for row in said]
    return np.array(rows, np.float32).reshape(len(labels), len(outputs))
