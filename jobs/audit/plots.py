"""The pictures of an audit's report, as data URIs so that the report is one file."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:  # matplotlib is imported when something is drawn
    from matplotlib.figure import Figure

INK, FLOOR, MARK = "#1d2733", "#b9c4cf", "#0b6e99"


def sheet(images: NDArray[np.uint8], num_columns: int, side: int = 128) -> str:
    """Pictures (N, S, S) side by side, each reduced to `side` pixels."""
    num_rows = -(-len(images) // num_columns)
    canvas = Image.new("L", (num_columns * side, num_rows * side))
    for i, pixels in enumerate(images):
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(picture, (i % num_columns * side, i // num_columns * side))
    return _jpeg(canvas)


def pair(first: NDArray[np.uint8], second: NDArray[np.uint8], side: int = 192) -> str:
    """Two pictures (S, S) beside each other."""
    return sheet(np.stack([first, second]), 2, side)


def forest(rows: Sequence[tuple[str, dict[str, Any]]], title: str) -> str:
    """A figure with its interval a row, the floor's interval as a band behind it.

    Args:
        rows: (label, {"value", "low", "high", "floor": the same or None}).
        title: what is measured, with its direction.
    """
    figure, axes = _axes(6.4, 0.6 + 0.32 * len(rows))
    for y, (_, each) in enumerate(rows):
        floor = each.get("floor")
        if floor is not None:
            axes.barh(y, floor["high"] - floor["low"], left=floor["low"], height=0.7, color=FLOOR)
            axes.plot([floor["value"]] * 2, [y - 0.35, y + 0.35], color="#75828f", lw=1)
        axes.plot([each["low"], each["high"]], [y, y], color=MARK, lw=2)
        axes.plot(each["value"], y, "o", color=MARK, ms=5)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10)
    return _png(figure)


def spectrum(ratios: Mapping[str, Sequence[float]]) -> str:
    """Power of synthetic over real images in every band, one line a population."""
    figure, axes = _axes(6.4, 2.8)
    for name, values in ratios.items():
        edges = [0.5 * (i + 1) / len(values) for i in range(len(values))]
        axes.plot(edges, values, marker="o", ms=3, label=name)
    axes.axhspan(0.5, 2, color=FLOOR, alpha=0.4)
    axes.axhline(1, color=INK, lw=0.8)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("frequency as a part of Nyquist's")
    axes.set_title("power, synthetic / real (1 = as much detail)", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def confusion(mean_rank: NDArray[np.floating], rows: Sequence[str], columns: Sequence[str]) -> str:
    """`gen.metrics.alignment.Confusion` as a table of colours, 0.5 being no different.

    Args:
        mean_rank: (R, C) in [0, 1].
        rows: R findings that were asked for.
        columns: C findings that were judged.
    """
    size = max(4.5, 1.5 + 0.42 * len(columns)), max(2.0, 1.2 + 0.36 * len(rows))
    figure, axes = _axes(*size)
    axes.imshow(mean_rank, cmap="RdBu", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    for (y, x), value in np.ndenumerate(mean_rank):
        ink = "white" if abs(value - 0.5) > 0.3 else INK
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color=ink)
    axes.set_title("asked for (row), how high it ranks as (column)", loc="left", fontsize=10)
    return _png(figure)


def histogram(counts: Mapping[str, Sequence[float]], threshold: float, title: str) -> str:
    """Densities of several groups over one axis, with the threshold.

    Args:
        counts: `edges` (B + 1) and, by group, the density (B) in each bin.
        threshold: drawn as a line.
        title: what is on the axis.
    """
    figure, axes = _axes(6.4, 2.6)
    edges = list(counts["edges"])
    for name, each in counts.items():
        if name != "edges":
            axes.stairs(each, edges, lw=1.5, label=name)
    axes.axvline(threshold, color="#b3261e", lw=1, label="threshold")
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def _axes(width: float, height: float) -> "tuple[Figure, Any]":
    # a figure of its own, not pyplot's: pyplot keeps global state and wants a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    return figure, axes


def _png(figure: "Figure") -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return _uri("png", stream)


def _jpeg(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=85)
    return _uri("jpeg", stream)


def _uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
