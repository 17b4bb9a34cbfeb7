"""Pictures of reports, as data URIs so that a report is one file."""

import base64
import io
from collections.abc import Sequence
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


def forest(rows: Sequence[tuple[str, dict[str, Any]]], title: str, *, zero: bool = False) -> str:
    """A figure with its interval a row, the floor's interval as a band behind it.

    Args:
        rows: (label, {"value", "low", "high", "floor": the same or None}).
        title: what is measured, with its direction.
        zero: whether a line marks no difference.
    """
    figure, axes = start(6.4, 0.6 + 0.32 * len(rows))
    if zero:
        axes.axvline(0, color="#75828f", lw=1)
    for y, (_, each) in enumerate(rows):
        floor = each.get("floor")
        if floor is not None:
            axes.barh(y, floor["high"] - floor["low"], left=floor["low"], height=0.7, color=FLOOR)
            axes.plot([floor["value"]] * 2, [y - 0.35, y + 0.35], color="#75828f", lw=1)
        axes.plot([each["low"], each["high"]], [y, y], color=MARK, lw=2)
        axes.plot(each["value"], y, "o", color=MARK, ms=5)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top, and none on the axis
    axes.set_title(title, loc="left", fontsize=10)
    return png(figure)


def start(width: float, height: float) -> "tuple[Figure, Any]":
    """A figure of so many inches, and its axes."""
    # a figure of its own, not pyplot's: pyplot keeps global state and wants a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    return figure, axes


def png(figure: "Figure") -> str:
    """The finished figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return _uri("png", stream)


def _jpeg(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=85)
    return _uri("jpeg", stream)


def _uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
