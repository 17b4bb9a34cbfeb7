"""Real images that a model is asked about, and how its answer is given.

The images come from one split at the model's own size; what was left out is said with the figures.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gen.data.atomic import atomic_file, check_writable
from gen.errors import MedphantomError
from jobs.device import Precision

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from torch import Tensor

    from gen.data.collection import Item

T = TypeVar("T")


def _writable(out: Path | None) -> Path | None:
    """Refuse a file that could not be written, before anything is measured."""
    if out is not None:
        check_writable(out, overwrite=True)
    return out


Data = Annotated[
    Path, typer.Option(exists=True, help="Real images with prompts and splits: folder or table")
]
Model = Annotated[str, typer.Option(help="Id, folder, hub id or checkpoint")]
MixedPrecision = Annotated[
    Precision,
    typer.Option(help="bf16 is twice as fast on CPUs with AMX; images differ a little"),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws and of all noise")]
Out = Annotated[
    Path | None, typer.Option(callback=_writable, help="Also write the figures to this file")
]


@dataclass(frozen=True)
class Drawn:
    """An image with its pixels (1, S, S) uint8."""

    item: "Item"
    pixels: "Tensor"


class Pictures:
    """Reads images at one size, in pixels a side, and remembers which it left out and why."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._left_out: dict[str, str] = {}

    def usable(self, items: "Iterable[Item]") -> Iterator[Drawn]:
        """The images that have a prompt and at least the pixels that training asks for."""
        return (drawn for drawn in map(self.read, items) if drawn is not None)

    def read(self, item: "Item") -> Drawn | None:
        """The image, if it is usable."""
        import numpy as np
        import torch

        from gen.data.images import read_image
        from gen.data.transforms import fit
        from gen.training.dataset import MIN_STORED_SIDE

        if not item.prompt:
            self.leave_out(item, "have no prompt")
        if item.name in self._left_out:
            return None
        try:
            stored = read_image(item.file).pixels
        except MedphantomError:
            self.leave_out(item, "cannot be read")
            return None
        if min(stored.shape) < MIN_STORED_SIDE:
            self.leave_out(item, f"are stored below {MIN_STORED_SIDE} pixels a side")
            return None
        pixels = np.round(fit(stored, self.side, item.orig_size) * 255).astype(np.uint8)
        return Drawn(item, torch.from_numpy(pixels)[None])

    def leave_out(self, item: "Item", reason: str) -> None:
        """Remember why an image is not used; the first reason counts."""
        self._left_out.setdefault(item.name, reason)

    def lines(self) -> list[str]:
        """A line for each reason, with the number of images and one of them."""
        first = {reason: name for name, reason in reversed(self._left_out.items())}
        counts = Counter(self._left_out.values())
        return [f"{counts[each]} image(s) {each}; the first: {first[each]}" for each in counts]


def shuffled(items: Sequence[T], rng: "np.random.Generator") -> list[T]:
    """All of them, in a drawn order."""
    return [items[index] for index in rng.permutation(len(items))]


def seed_of(seed: int, name: str) -> int:
    """Of the noise that is drawn for an image, which depends on nothing else."""
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:15], 16)


def interval(estimate: dict[str, float] | None) -> str:
    """An estimate in a cell of a table."""
    if estimate is None:
        return "too few images"
    return "{value:.3f}  [{low:.3f}, {high:.3f}]".format(**estimate)


def give(table: Table, figures: dict[str, Any], out: Path | None) -> None:
    """Show people the table and the figures' `omissions`; print the figures as JSON."""
    console = Console(stderr=True)
    console.print(table)
    for line in figures["omissions"]:
        console.print(f"left out or assumed: {line}", markup=False)
    if out is not None:
        with atomic_file(out, overwrite=True) as stream:
            stream.write((json.dumps(figures, indent=1) + "\n").encode())
    typer.echo(json.dumps(figures))
