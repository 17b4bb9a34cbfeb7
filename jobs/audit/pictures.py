"""The pictures an audit's page shows: samples, the best and the worst, suspicious pairs."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gen.data.captions import NORMAL
from gen.metrics.feature_cache import read_thumbnails
from gen.metrics.nearest import nearest
from jobs.audit import plots
from jobs.audit.schema import Audit, Omitted
from jobs.audit.sets import ImageSet, Inputs
from jobs.plots import forest, pair, sheet

NUM_SAMPLES, NUM_EXTREMES = 12, 6
SIDE = 192
FIGURES = {  # that are drawn by group
    "frechet": "Fréchet distance (lower is better)",
    "coverage": "coverage (higher is better)",
}


def pictures_of(inputs: Inputs, audit: Audit) -> dict[str, Any]:
    """Data URIs by name, see `jobs.audit.report.write_report`."""
    best, worst = _extremes(inputs)
    return {
        "synthetic": _sheet(inputs.synthetic, _drawn(inputs.synthetic, inputs.seed), 6),
        "real": _sheet(inputs.real, _drawn(inputs.real, inputs.seed), 6),
        "best": _sheet(inputs.synthetic, best, 6),
        "worst": _sheet(inputs.synthetic, worst, 6),
        "pairs": _pairs(inputs, audit),
    }


def plots_of(audit: Audit) -> dict[str, Any]:
    """Data URIs by name; None where there is nothing to plot."""
    fidelity, copies, alignment = audit.fidelity, audit.copies, audit.alignment
    spectrum = None if isinstance(fidelity.spectrum, Omitted) else plots.spectrum(fidelity.spectrum)
    histogram = confusion = None
    if not isinstance(copies, Omitted):
        histogram = plots.histogram(
            copies.histogram, copies.threshold.value, "similarity to the nearest training image"
        )
    if not isinstance(alignment, Omitted) and set(alignment.confusion.rows) - {NORMAL}:
        table = alignment.confusion
        confusion = plots.confusion(np.array(table.mean_rank), table.rows, table.columns)
    return {
        "fidelity": [_forest(audit, name, title) for name, title in FIGURES.items()],
        "spectrum": spectrum,
        "confusion": confusion,
        "copies": histogram,
    }


def _forest(audit: Audit, name: str, title: str) -> str | None:
    groups = {"all": audit.fidelity.overall}
    for found in audit.fidelity.groups.values():
        groups |= found
    rows = [
        (f"{label} ({group.images})", group.figures[name].model_dump())
        for label, group in groups.items()
        if not isinstance(group, Omitted)
    ]
    return forest(rows, title) if rows else None


def _drawn(images: ImageSet, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).permutation(len(images))[:NUM_SAMPLES]


def _extremes(inputs: Inputs) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Synthetic images nearest to, and farthest from, any real one in the encoder's eyes."""
    ours, theirs = (
        torch.from_numpy((each.features - inputs.real.features.mean(0)).astype(np.float32))
        for each in (inputs.synthetic, inputs.real)
    )
    # |a - b|^2 = |a|^2 - (2 a.b - |b|^2): the largest product with one column more
    keys = torch.cat([2 * theirs, -theirs.square().sum(1, keepdim=True)], 1)
    asked = torch.cat([ours, torch.ones(len(ours), 1)], 1)
    rows = nearest(asked, keys, 1)[:, 0]
    order = (ours - theirs[rows]).square().sum(1).argsort().numpy()
    return order[:NUM_EXTREMES], order[::-1][:NUM_EXTREMES].copy()


def _sheet(images: ImageSet, rows: NDArray[np.intp], num_columns: int) -> str:
    pictures = read_thumbnails(images.part(rows).items, SIDE).images
    return sheet(pictures[:, 0].numpy(), min(num_columns, len(pictures)))


def _pairs(inputs: Inputs, audit: Audit) -> list[dict[str, str]]:
    if isinstance(audit.copies, Omitted) or not audit.copies.pairs:
        return []
    searched = inputs.real if inputs.train is None else inputs.train
    ours = {item.name: item for item in inputs.synthetic.items}
    theirs = {item.name: item for item in searched.items}
    flagged = set(audit.copies.flagged)
    shown = []
    for each in audit.copies.pairs:
        items = [ours[each.synthetic], theirs[each.training]]
        pictures = read_thumbnails(items, SIDE).images[:, 0].numpy()
        verdict = "above the threshold" if each.synthetic in flagged else "usual"
        caption = f"{each.synthetic} and {each.training}: {each.similarity:.2f}, {verdict}"
        shown.append({"picture": pair(*pictures), "caption": caption})
    return shown
