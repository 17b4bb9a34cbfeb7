"""The plots of an audit's report, as data URIs so that the report is one file."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.plots import FLOOR, INK, png, start


def spectrum(ratios: Mapping[str, Sequence[float]]) -> str:
    """Power of synthetic over real images in every band, one line a population."""
    figure, axes = start(6.4, 2.8)
    for name, values in ratios.items():
        edges = [0.5 * (i + 1) / len(values) for i in range(len(values))]
        axes.plot(edges, values, marker="o", ms=3, label=name)
    axes.axhspan(0.5, 2, color=FLOOR, alpha=0.4)
    axes.axhline(1, color=INK, lw=0.8)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("frequency as a part of Nyquist's")
    axes.set_title("power, synthetic / real (1 = as much detail)", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)


def confusion(mean_rank: NDArray[np.floating], rows: Sequence[str], columns: Sequence[str]) -> str:
    """`gen.metrics.alignment.Confusion` as a table of colours, 0.5 being no different.

    Args:
        mean_rank: (R, C) in [0, 1].
        rows: R findings that were asked for.
        columns: C findings that were judged.
    """
    size = max(4.5, 1.5 + 0.42 * len(columns)), max(2.0, 1.2 + 0.36 * len(rows))
    figure, axes = start(*size)
    axes.imshow(mean_rank, cmap="RdBu", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    for (y, x), value in np.ndenumerate(mean_rank):
        ink = "white" if abs(value - 0.5) > 0.3 else INK
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color=ink)
    axes.set_title("asked for (row), how high it ranks as (column)", loc="left", fontsize=10)
    return png(figure)


def histogram(counts: Mapping[str, Sequence[float]], threshold: float, title: str) -> str:
    """Densities of several groups over one axis, with the threshold.

    Args:
        counts: `edges` (B + 1) and, by group, the density (B) in each bin.
        threshold: drawn as a line.
        title: what is on the axis.
    """
    figure, axes = start(6.4, 2.6)
    edges = list(counts["edges"])
    for name, each in counts.items():
        if name != "edges":
            axes.stairs(each, edges, lw=1.5, label=name)
    axes.axvline(threshold, color="#b3261e", lw=1, label="threshold")
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)
