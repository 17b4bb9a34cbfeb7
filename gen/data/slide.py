"""Slides in: any region of an image that may be larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.images import read_colour
from gen.data.limits import LARGEST_SIDE, Limits, boundary, read_start
from gen.errors import InvalidInput, UnsafeFile

if TYPE_CHECKING:
    from openslide import OpenSlide

# A PNG or JPEG as large as a region of a slide may be; of a slide, what is held at a time.
SLIDE_LIMITS = Limits(max_side=LARGEST_SIDE, max_pixels=LARGEST_SIDE**2, max_bytes=2**29)
_PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True)
class Slide:
    """An open slide or picture; a context manager that closes it.

    Attributes:
        name: for messages.
        height, width: of the full resolution, in pixels.
        microns_per_pixel: side of a pixel in micrometres; None if the file does not say.
    """

    name: str
    height: int
    width: int
    microns_per_pixel: float | None
    _read: Callable[[int, int, int, int], NDArray[np.uint8]]
    close: Callable[[], None]

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the region as RGB (height, width, 3), at full resolution.

        Raises:
            InvalidInput: the region is empty or reaches beyond the slide.
            UnsafeFile: the slide is damaged there.
        """
        inside = 0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width
        if not inside:
            raise InvalidInput(
                f"top, left, height, width are {top}, {left}, {height}, {width}, but {self.name} "
                f"has {self.height} x {self.width} pixels (height x width); choose a region inside"
            )
        with boundary(self.name):
            return self._read(top, left, height, width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_slide(path: str | Path, limits: Limits = SLIDE_LIMITS) -> Slide:
    """Open a PNG or JPEG, or whatever OpenSlide reads: SVS, NDPI, MIRAX, tiled TIFF, DICOM, ...

    A picture is decoded at once, a slide region by region, on white where it holds nothing.

    Args:
        path: the file; its content tells its format, not its name.
        limits: what a picture may cost; of a slide, max_pixels is that of one of its tiles.

    Raises:
        UnsafeFile: the file is empty, of another format, damaged, or too large for `limits`.
        InvalidInput: the file cannot be opened, or OpenSlide is not installed.
    """
    if is_picture(Path(path)):
        pixels = read_colour(path, limits)
        height, width = pixels.shape[:2]
        return Slide(Path(path).name, height, width, None, _cut(pixels), lambda: None)
    slide = open_with_openslide(path, limits)
    width, height = slide.dimensions
    return Slide(Path(path).name, height, width, _scale(slide), _region(slide), slide.close)


def thumbnail(path: str | Path, side: int, limits: Limits = SLIDE_LIMITS) -> Image.Image:
    """Return the whole slide or picture as RGB, neither side above `side` pixels.

    Raises what `open_slide` raises, and UnsafeFile if no level of the slide is small enough to
    be made smaller in memory.
    """
    if side < 1:
        raise InvalidInput(f"side is {side}, but it must be at least 1; 512 is usual")
    if is_picture(Path(path)):
        picture = Image.fromarray(read_colour(path, limits))
        picture.thumbnail((side, side))
        return picture
    with boundary(Path(path).name), open_with_openslide(path, limits) as slide:
        level = slide.get_best_level_for_downsample(max(slide.dimensions) / side)
        width, height = slide.level_dimensions[level]
        if width * height > limits.max_pixels:
            raise UnsafeFile(
                f"{Path(path).name} has {width} x {height} pixels in the level to be made smaller, "
                f"but max_pixels is {limits.max_pixels}; write it with more levels"
            )
        return slide.get_thumbnail((side, side)).convert("RGB")


def open_with_openslide(path: str | Path, limits: Limits = SLIDE_LIMITS) -> "OpenSlide":
    """Open a slide with OpenSlide; raises what `open_slide` raises."""
    try:
        from openslide import OpenSlide
    except (ImportError, OSError) as error:  # the module, or the library that it calls
        raise InvalidInput(
            f"{path} is a slide, but OpenSlide is not installed; pip install 'medphantom[slide]'"
        ) from error
    name, start = Path(path).name, read_start(path)
    if not start:
        raise UnsafeFile(f"{name} is empty, but a slide is needed; copy it again")
    with boundary(name):
        if OpenSlide.detect_format(path) is None:
            raise UnsafeFile(
                f"{name} starts with {start[:4]!r}, but only PNG, JPEG and what OpenSlide reads "
                "(tiled TIFF, SVS, NDPI, MIRAX, DICOM, ...) is opened; convert it to tiled TIFF"
            )
        slide = OpenSlide(path)
        _check_levels(name, slide, limits)
    return slide


def is_picture(path: Path) -> bool:
    """Tell whether a file is a PNG or JPEG, decoded whole, rather than a slide."""
    # a MIRAX slide's file of that ending is a JPEG, the slide is in the folder beside it
    return path.suffix.lower() != ".mrxs" and read_start(path).startswith(_PICTURE_STARTS)


def _check_levels(name: str, slide: "OpenSlide", limits: Limits) -> None:
    """Refuse a slide without pixels, or with tiles that take all memory when one is read."""
    if not slide.level_count or min(slide.dimensions) < 1:
        raise UnsafeFile(f"{name} has no level with pixels, but a slide needs one; export it again")
    for level in range(slide.level_count):
        sides = [f"openslide.level[{level}].tile-{side}" for side in ("width", "height")]
        width, height = (int(slide.properties.get(side, 1)) for side in sides)
        if width * height > limits.max_pixels:
            raise UnsafeFile(
                f"{name} has tiles of {width} x {height} pixels, but max_pixels is "
                f"{limits.max_pixels}; convert it to a TIFF with tiles of 256"
            )


def _cut(pixels: NDArray[np.uint8]) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        return pixels[top : top + height, left : left + width].copy()

    return read


def _region(slide: "OpenSlide") -> Callable[[int, int, int, int], NDArray[np.uint8]]:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        region = slide.read_region((left, top), 0, (width, height))
        white = Image.new("RGB", region.size, "white")
        white.paste(region, mask=region)
        return np.asarray(white)

    return read


def _scale(slide: "OpenSlide") -> float | None:
    """Micrometres a pixel, the mean of both directions."""
    sides = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    known = [float(side) for side in sides if side]
    return sum(known) / 2 if len(known) == 2 else None
