"""Where a picture lies in the square that a model sees, and the way back to its own pixels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.transforms import fit
from gen.errors import InvalidInput

XYWH = tuple[float, float, float, float]

# A strip is resized whole before its ends are cut off, so a thin one would take gigabytes.
LONGEST_ASPECT = 32


@dataclass(frozen=True)
class ModelSquare:
    """The geometry of `gen.data.transforms.fit`, in both directions.

    Args:
        height, width: of the source picture in pixels.
        size: side of the square in pixels.
        mode: crop cuts the longer side's ends off; pad keeps all and adds black.
        orig_size: (height, width) before somebody squashed the picture; None: it was not.

    Raises InvalidInput if a side is not positive or the picture is a thin strip.
    """

    height: int
    width: int
    size: int
    mode: Literal["crop", "pad"] = "pad"
    orig_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        true = self.orig_size or (self.height, self.width)
        if min(self.height, self.width, self.size, *true) < 1:
            raise InvalidInput(
                f"the picture is {self.height} x {self.width} (orig_size {self.orig_size}) and "
                f"size is {self.size}, but every side must be at least 1"
            )
        if self.mode not in ("crop", "pad"):
            raise InvalidInput(f"mode is {self.mode!r}, but it must be 'crop' or 'pad'")
        if max(true) > LONGEST_ASPECT * min(true):
            raise InvalidInput(
                f"the picture is {true[0]} x {true[1]}, but one side may be at most "
                f"{LONGEST_ASPECT} times the other; cut it into parts"
            )

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) of the picture at the model's scale, before it is cut or padded."""
        height, width = self.orig_size or (self.height, self.width)
        side = min(height, width) if self.mode == "crop" else max(height, width)
        return max(1, round(height * self.size / side)), max(1, round(width * self.size / side))

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left) of the resized picture in the square; negative where it is cut off."""
        rows, columns = (self.size - side for side in self.resized)
        return _half(rows), _half(columns)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(S, S): True where the square shows picture, False where it is padding."""
        inside = np.zeros((self.size, self.size), bool)
        inside[self._window] = True
        return inside

    def to_model(self, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        """Fit pixels (H, W) in [0, 1] to the square: (S, S) in [0, 1]."""
        if pixels.shape != (self.height, self.width):
            raise InvalidInput(
                f"pixels have the shape {pixels.shape}, but this square is of a picture of "
                f"{(self.height, self.width)}; make another one"
            )
        return fit(pixels, self.size, self.orig_size, self.mode)

    def mirrored(self, square: NDArray[np.floating]) -> NDArray[np.float32]:
        """A fitted picture (S, S) whose padding shows its mirror image instead of black.

        Models that were trained on whole squares draw seams beside black bars.
        """
        rows, columns = self._window
        margins = [(side.start, self.size - side.stop) for side in (rows, columns)]
        return np.pad(square[rows, columns], margins, mode="symmetric").astype(np.float32)

    def from_model(self, square: NDArray[np.floating], fill: float = 0.0) -> NDArray[np.float32]:
        """Lay a map (S, S) back on the picture (H, W): linear between pixels, padding cut off.

        Args:
            square: one finite number a pixel of the square, of any range.
            fill: value of source pixels that the model never saw.
        """
        if square.shape != (self.size, self.size):
            raise InvalidInput(
                f"the map has the shape {square.shape}, but {(self.size, self.size)} is needed"
            )
        if not np.isfinite(square).all():
            raise InvalidInput("the map holds NaN or infinity, but every value must be finite")
        seen = np.asarray(square, np.float32)[self._window]
        margins = [
            (max(0, -start), max(0, start + side - self.size))
            for start, side in zip(self.offset, self.resized, strict=True)
        ]
        # the edge goes on into what was cut off, so that `fill` never bleeds into what was seen
        whole = np.ascontiguousarray(np.pad(seen, margins, mode="edge"))
        if whole.shape != (self.height, self.width):
            picture = Image.fromarray(whole)
            resized = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
            whole = np.array(resized, np.float32)
        whole[~self.seen] = fill
        return whole

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(H, W): True where a source pixel's centre lies in the square, False where it was cut."""
        rows = self._in_square(self.height, 0)
        columns = self._in_square(self.width, 1)
        return rows[:, None] & columns[None, :]

    def box_from_model(self, box: XYWH) -> XYWH | None:
        """Return the source pixels (x, y, w, h) under a box of the square; None if all padding.

        Edges lie between pixels: (0, 0, S, S) is the whole square.
        """
        x, y, w, h = box
        if not (np.isfinite(box).all() and w > 0 and h > 0):
            raise InvalidInput(f"box is {box}, but (x, y, w, h) with positive sides is needed")
        top, bottom = self._clipped((y, y + h), 0, self.height)
        left, right = self._clipped((x, x + w), 1, self.width)
        if top >= bottom or left >= right:
            return None
        return left, top, right - left, bottom - top

    def _clipped(self, edges: tuple[float, float], axis: int, length: int) -> tuple[float, float]:
        scale = length / self.resized[axis]
        low, high = (float(edge - self.offset[axis]) * scale for edge in edges)
        return max(0.0, low), min(float(length), high)

    def _in_square(self, length: int, axis: int) -> NDArray[np.bool_]:
        """(length,): True where the centre of a source row or column lies in the square."""
        centres = (np.arange(length) + 0.5) * self.resized[axis] / length + self.offset[axis]
        return (centres >= 0) & (centres < self.size)

    @property
    def _window(self) -> tuple[slice, slice]:
        """The part of the square that shows picture."""
        top, bottom = (
            slice(max(0, start), min(self.size, start + side))
            for start, side in zip(self.offset, self.resized, strict=True)
        )
        return top, bottom


def _half(room: int) -> int:
    return room // 2 if room > 0 else -(-room // 2)
