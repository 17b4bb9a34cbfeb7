"""Denoise and decode a canvas of latents of any height, a row of windows at a time."""

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.data.canvas import Canvas
from gen.denoising import begin
from gen.errors import InvalidInput
from gen.tiling import Emit, Layout, blend, ramp
from gen.types import Process, Scheduler

PredictWindows = Callable[[Tensor, Tensor, Tensor], Process[Tensor]]
"""(latents (N, C, s, s), timestep (), centres (N, 2) in cells, (y, x)) -> model output."""

OnWindows = Callable[[int, int], None]
"""(windows answered in all, of how many)."""


def draw_canvas_noise(canvas: Canvas, band: int, scale: float, generator: torch.Generator) -> None:
    """Fill a canvas with normal noise times `scale`, `band` rows at a time from the top.

    The order is part of what a seed means.
    """
    for top in range(0, canvas.height, band):
        rows = min(band, canvas.height - top)
        noise = torch.randn((canvas.channels, rows, canvas.width), generator=generator)
        canvas.write(top, noise * scale)


def denoise_canvas(
    canvas: Canvas,
    scheduler: Scheduler,
    predict: PredictWindows,
    layouts: Sequence[Layout],
    weights: Tensor,
    generator: torch.Generator,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    keep: Callable[[int, int, Tensor], Tensor] | None = None,
    on_windows: OnWindows = lambda *_: None,
    skip: int = 0,
) -> Process[None]:
    """Take a canvas of noise along a scheduler's timesteps to clean latents, in place.

    Args:
        canvas: latents, noise times `scheduler.init_noise_sigma`.
        scheduler: a fresh one, with its timesteps set; bands of rows work on copies of it.
        predict: the network with its guidance, for a row of windows.
        layouts: of each timestep.
        weights: (s, s), positive, of a window's cells where windows overlap.
        generator: for the schedulers that add noise, drawn band by band from the top.
        folder: where what a multistep scheduler remembers of a band waits for the band's turn.
        device, dtype: of the latents that `predict` is given.
        keep: (index of the step, top, rows (C, h, W) after it) -> the rows to go on with.
        on_windows: told after each row of windows.
        skip: steps left out at the start; the canvas is of the noise level behind them.

    Raises:
        InvalidInput: `folder` has no room.
    """
    side = layouts[0].side
    begin(scheduler, skip)
    bands = _Bands(canvas, scheduler, side, generator, folder, keep)
    total, done = sum(layout.num_windows for layout in layouts[skip:]), 0
    steps = list(zip(scheduler.timesteps, layouts, strict=True))
    for index, (timestep, layout) in enumerate(steps[skip:], skip):

        def answer(top: int, lefts: Sequence[int]) -> Process[Tensor]:
            nonlocal done
            rows = bands.scaled(top, side, timestep)  # noqa: B023 (used before the next one)
            windows = torch.stack([rows[:, :, left : left + side] for left in lefts])
            centres = torch.tensor([[top + side / 2, left + side / 2] for left in lefts])
            output = yield from predict(windows.to(device, dtype), timestep.float(), centres)  # noqa: B023
            done += len(lefts)
            on_windows(done, total)
            return output.cpu()

        bands.begin(index, timestep)
        yield from blend(layout, canvas.width, weights, answer, bands.take)


class _Bands:
    """Bands of rows of a canvas, each with a scheduler of its own, stepped from top to bottom."""

    def __init__(
        self,
        canvas: Canvas,
        scheduler: Scheduler,
        rows: int,
        generator: torch.Generator,
        folder: Path,
        keep: Callable[[int, int, Tensor], Tensor] | None,
    ) -> None:
        self.canvas = canvas
        self.rows = rows
        self.folder = folder
        self.keep = keep
        count = -(-canvas.height // rows)
        self.schedulers: list[Any] = [_twin(scheduler) for _ in range(count)]
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        self.noise: dict[str, Any] = {"generator": generator} if takes_generator else {}

    def begin(self, index: int, timestep: Tensor) -> None:
        """A new step: nothing has been predicted."""
        self.index, self.timestep = index, timestep
        self.next, self.waiting = 0, torch.zeros(self.canvas.channels, 0, self.canvas.width)

    def scaled(self, top: int, count: int, timestep: Tensor) -> Tensor:
        """Rows of the canvas as the network is to see them."""
        rows = self.canvas.read(top, top + count)
        # this band has not been stepped, or it would not be read any more
        scheduler = self.schedulers[top // self.rows]
        scaled: Tensor = scheduler.scale_model_input(rows, timestep)
        return scaled

    def take(self, top: int, output: Tensor) -> None:
        """Step every band of which all rows of the network's output (C, h, W) have come."""
        self.waiting = torch.cat([self.waiting, output], dim=1)
        while self.next < len(self.schedulers):
            start = self.next * self.rows
            count = min(self.rows, self.canvas.height - start)
            if self.waiting.shape[1] < count:
                return
            self._step(start, self.waiting[:, :count])
            self.waiting = self.waiting[:, count:]
            self.next += 1

    def _step(self, start: int, output: Tensor) -> None:
        scheduler = self.schedulers[self.next]
        file = self.folder / f"band-{self.next}.npz"
        rows = self.canvas.read(start, start + output.shape[1])[None]
        _recall(scheduler, file)
        scheduler.scale_model_input(rows, self.timestep)  # some ask to be told, see `scaled`
        stepped = scheduler.step(output[None], self.timestep, rows, **self.noise).prev_sample[0]
        _put_away(scheduler, file)
        if self.keep is not None:
            stepped = self.keep(self.index, start, stepped)
        self.canvas.write(start, stepped)


def _twin(scheduler: Scheduler) -> Any:
    """A copy that shares the schedule's constants, but not what steps change."""
    twin = copy.copy(scheduler)
    for name, value in vars(twin).items():
        if isinstance(value, list):
            setattr(twin, name, list(value))
    return twin


def _put_away(scheduler: Any, file: Path) -> None:
    """Move what a scheduler remembers of latents, tensors of (1, C, h, W), to a file."""
    tensors = {}
    for name, value in vars(scheduler).items():
        for place, item in enumerate(value) if isinstance(value, list) else [(-1, value)]:
            if isinstance(item, Tensor) and item.ndim == 4:
                tensors[f"{name}.{place}"] = item.numpy()
    file.unlink(missing_ok=True)
    if tensors:
        try:
            np.savez(file, **tensors)  # type: ignore[arg-type]
        except OSError as error:
            size = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
            raise InvalidInput(
                f"{file.parent} has no room for {size:.1f} MB that a scheduler remembers of each"
                " band; free some, or set TMPDIR to another disk"
            ) from error
    for name in tensors:
        _set(scheduler, name, None)


def _recall(scheduler: Any, file: Path) -> None:
    if file.exists():
        with np.load(file) as tensors:
            for name, tensor in tensors.items():
                _set(scheduler, name, torch.from_numpy(tensor))


def _set(scheduler: Any, name: str, value: Tensor | None) -> None:
    attribute, place = name.rsplit(".", 1)
    if place == "-1":
        setattr(scheduler, attribute, value)
    else:
        getattr(scheduler, attribute)[int(place)] = value


def decode_canvas(
    canvas: Canvas,
    decode: Callable[[Tensor], Process[Tensor]],
    layout: Layout,
    shared: int,
    factor: int,
    emit: Emit,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Process[None]:
    """Decode a canvas window by window, blended where windows overlap.

    Args:
        canvas: clean latents.
        decode: latents (N, c, s, s) -> images (N, C, s * factor, s * factor).
        layout: of the windows, in cells.
        shared: cells of a window within which it fades into its neighbour.
        factor: pixels a cell.
        emit: gets finished rows of pixels.
        device, dtype: of the latents that `decode` is given.
    """
    pixels = Layout(
        tuple(top * factor for top in layout.tops),
        tuple(left * factor for left in layout.lefts),
        layout.side * factor,
    )

    def answer(top: int, lefts: Sequence[int]) -> Process[Tensor]:
        rows = canvas.read(top // factor, top // factor + layout.side)
        starts = [left // factor for left in lefts]
        windows = torch.stack([rows[:, :, left : left + layout.side] for left in starts])
        images = yield from decode(windows.to(device, dtype))
        return images.cpu()

    weights = ramp(pixels.side, max(1, shared * factor))
    yield from blend(pixels, canvas.width * factor, weights, answer, emit)
