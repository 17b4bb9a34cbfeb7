"""Write an image of any size, band by band, as a pyramidal tiled OME-TIFF.

Made for three readers at once. OpenSlide takes tiled directories of the main chain that are marked
as reduced images; Bio-Formats, and so QuPath, takes the SubIFDs of the first directory, and
leaves out reduced images of the chain; tifffile takes either. Each level is stored once: the
SubIFDs of the first directory point at the next ones of the chain.
"""

import errno
import os
import shutil
import zlib
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.data.atomic import atomic_file, check_writable
from gen.data.ome_xml import write_ome_xml
from gen.data.provenance import Record
from gen.data.pyramid import PyramidLevel
from gen.data.tiff_directory import Tag, pack_directory, pack_header
from gen.errors import InvalidInput

Compression = Literal["jpeg", "deflate"]

# All levels of dense stained tissue at 0.5 um a pixel, JPEG at quality 90; others take less.
_EXPECTED_BYTES_PER_PIXEL = {"jpeg": 0.5, "deflate": 2.5}
# Readers that keep offsets in signed 32 bits lose their way beyond 2 GiB.
_LARGEST_CLASSIC_TIFF = 2**31
_HEADER_BYTES = 16
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MICRONS_IN_A_CENTIMETRE = 10_000


class SlideWriter:
    """A context manager: `write` the bands from top to bottom, then leave the block.

    The file appears under its name when the block ends without an exception and every row was
    written; otherwise nothing of it is left. Memory grows with the width only.

    Args:
        path: file to make, by custom named .ome.tif.
        height, width: pixels.
        microns_per_pixel: side of a pixel in micrometres, 0.001 to 1000.
        record: what made the image; `Record.from_file` reads it back.
        compression: "jpeg" (4:2:2) or "deflate" (lossless, with horizontal prediction).
        quality: of JPEG, 1 to 100.
        tile: side of a tile in pixels, a multiple of 16 from 16 to 4096.
        overwrite: replace an existing file.

    Raises:
        InvalidInput: an argument breaks a rule, the file exists, or the disk has too little room.
    """

    def __init__(
        self,
        path: str | Path,
        height: int,
        width: int,
        *,
        microns_per_pixel: float,
        record: Record,
        compression: Compression = "jpeg",
        quality: int = 90,
        tile: int = 256,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        _check(height, width, microns_per_pixel, compression, quality, tile)
        check_writable(self.path, overwrite=overwrite)
        self.height, self.width, self.tile = height, width, tile
        self.microns_per_pixel, self.record = microns_per_pixel, record
        self.compression, self.quality, self.overwrite = compression, quality, overwrite
        self.expected_bytes = int(height * width * _EXPECTED_BYTES_PER_PIXEL[compression])
        _check_free_space(self.path, self.expected_bytes)

    def __enter__(self) -> Self:
        self._block: AbstractContextManager[None] = self._open()
        self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    def write(self, band: NDArray[np.uint8]) -> None:
        """Add the next rows, RGB (h, width, 3) of 8 bits with any h of 1 or more.

        Raises InvalidInput if the band has another shape or dtype, goes beyond the last row, or
        the disk is full.
        """
        self._check_band(band)
        self._image.add(band)

    @contextmanager
    def _open(self) -> Iterator[None]:
        # both compressions stay below twice the pixels, also where these are noise
        self._big = 2 * 3 * self.height * self.width * 4 // 3 > _LARGEST_CLASSIC_TIFF
        with atomic_file(self.path, overwrite=self.overwrite) as stream:
            # unbuffered: a buffer that a full disk refused would be written again on closing
            self._handle, self._end = stream.fileno(), 0
            self._image = PyramidLevel(self.height, self.width, self.tile, self._put)
            self._offsets = [array("Q") for _ in self._image.levels]
            self._counts = [array("I") for _ in self._image.levels]
            self._append(b"\0" * _HEADER_BYTES)
            try:
                yield
                self._finish()
            finally:
                self._handle = -1  # the number may soon be another file's

    def _put(self, level: int, strip: NDArray[np.uint8]) -> None:
        """Store a row of tiles; those at the right and bottom edges are filled up to their size."""
        rows, columns = -len(strip) % self.tile, -strip.shape[1] % self.tile
        # repeating the edge keeps JPEG's blocks free of ringing there
        strip = np.pad(strip, ((0, rows), (0, columns), (0, 0)), mode="edge")
        for left in range(0, strip.shape[1], self.tile):
            data = self._encode(strip[:, left : left + self.tile])
            self._offsets[level].append(self._end)
            self._counts[level].append(len(data))
            self._append(data)

    def _encode(self, tile: NDArray[np.uint8]) -> bytes:
        if self.compression == "jpeg":
            stream = BytesIO()
            Image.fromarray(np.ascontiguousarray(tile)).save(
                stream, "JPEG", quality=self.quality, subsampling="4:2:2"
            )
            return stream.getvalue()
        differences = tile.copy()
        differences[:, 1:] -= tile[:, :-1]
        return zlib.compress(differences.tobytes())

    def _finish(self) -> None:
        """Write the directories, largest level first, and the header that points at them."""
        if self._image.rows != self.height:
            raise InvalidInput(
                f"{self.path} has {self._image.rows} of {self.height} rows, but a slide needs all; "
                "write every band before the block ends"
            )
        self._append(b"\0" * (self._end % 2))
        levels = range(len(self._offsets))
        pointers = [0] * (len(levels) - 1)  # of the same size as the real ones
        sizes = (len(self._directory(level, pointers, 0, 0)) for level in levels)
        starts = list(accumulate(sizes, initial=self._end))
        for level in levels:
            following = starts[level + 1] if level + 1 < len(levels) else 0
            self._append(self._directory(level, starts[1:-1], starts[level], following))
        os.lseek(self._handle, 0, os.SEEK_SET)
        self._append(pack_header(starts[0], self._big))
        with self._full_disk_explained():  # some file systems find room only now
            os.fsync(self._handle)

    def _directory(self, number: int, smaller: list[int], offset: int, following: int) -> bytes:
        level = self._image.levels[number]
        resolution = _MICRONS_IN_A_CENTIMETRE / (self.microns_per_pixel * 2**number)
        tags = [
            Tag(254, "long", [min(number, 1)]),  # NewSubfileType: whole or reduced
            Tag(256, "long", [level.width]),
            Tag(257, "long", [level.height]),
            Tag(258, "short", [8, 8, 8]),  # BitsPerSample
            Tag(277, "short", [3]),  # SamplesPerPixel
            Tag.ratio(282, resolution),  # XResolution
            Tag.ratio(283, resolution),  # YResolution
            Tag(284, "short", [1]),  # PlanarConfiguration: RGBRGB...
            Tag(296, "short", [3]),  # ResolutionUnit: centimetre
            Tag(322, "long", [self.tile]),  # TileWidth
            Tag(323, "long", [self.tile]),  # TileLength
            Tag(324, "offset", self._offsets[number]),
            Tag(325, "long", self._counts[number]),  # TileByteCounts
            *_compression_tags(self.compression),
        ]
        if number == 0:
            tags += self._description_tags()
            if smaller:
                tags.append(Tag(330, "directory", smaller))  # SubIFDs
        return pack_directory(tags, offset, following, self._big)

    def _description_tags(self) -> list[Tag]:
        xml = write_ome_xml(
            self.height,
            self.width,
            self.microns_per_pixel,
            self.record.describe(),
            self.record.to_json(),
        )
        software = self.record.software.encode("ascii", "replace").decode()
        return [Tag.text(270, xml), Tag.text(305, software)]  # ImageDescription, Software

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        with self._full_disk_explained():
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        self._end += len(data)

    @contextmanager
    def _full_disk_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise
            raise InvalidInput(
                f"{self.path} needs about {_mebibytes(self.expected_bytes)}, but its disk was full "
                f"after {_mebibytes(self._end)}; free some space or choose another folder"
            ) from error

    def _check_band(self, band: NDArray[np.uint8]) -> None:
        if band.dtype != np.uint8:
            raise InvalidInput(
                f"band is of {band.dtype}, but it must be of uint8; scale it to 0 ... 255"
            )
        if band.ndim != 3 or band.shape[1:] != (self.width, 3) or not len(band):
            raise InvalidInput(
                f"band has shape {band.shape}, but it must be (rows, {self.width}, 3) with at "
                "least one row; rearrange it"
            )
        if self._image.rows + len(band) > self.height:
            raise InvalidInput(
                f"band has {len(band)} rows after {self._image.rows}, but height is {self.height}; "
                "leave out the rows beyond"
            )


def _compression_tags(compression: Compression) -> list[Tag]:
    if compression == "deflate":
        return [
            Tag(259, "short", [8]),  # Compression: Adobe deflate
            Tag(262, "short", [2]),  # PhotometricInterpretation: RGB
            Tag(317, "short", [2]),  # Predictor: horizontal differences
        ]
    return [
        Tag(259, "short", [7]),  # Compression: JPEG
        Tag(262, "short", [6]),  # PhotometricInterpretation: YCbCr
        # halved across, because Bio-Formats would convert colours of full resolution twice
        Tag(530, "short", [2, 1]),  # YCbCrSubSampling
        Tag(532, "rational", [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]),  # ReferenceBlackWhite
    ]


def _check(
    height: int, width: int, microns_per_pixel: float, compression: str, quality: int, tile: int
) -> None:
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value < 2**31:
            raise InvalidInput(f"{name} is {value}, but it must be 1 to 2147483647 pixels")
    if not 0.001 <= microns_per_pixel <= 1000:
        raise InvalidInput(
            f"microns_per_pixel is {microns_per_pixel}, but it must be 0.001 to 1000; 0.5 is that "
            "of a 20x scan"
        )
    if compression not in _EXPECTED_BYTES_PER_PIXEL:
        raise InvalidInput(f"compression is {compression!r}, but it must be 'jpeg' or 'deflate'")
    if not 1 <= quality <= 100:
        raise InvalidInput(f"quality is {quality}, but it must be 1 to 100; 90 is usual")
    if not 16 <= tile <= 4096 or tile % 16:
        raise InvalidInput(
            f"tile is {tile}, but it must be a multiple of 16 from 16 to 4096; 256 is usual"
        )


def _check_free_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InvalidInput(
            f"{path} needs about {_mebibytes(needed)}, but its disk has {_mebibytes(free)} left; "
            "free some space, choose another folder or a smaller size"
        )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
