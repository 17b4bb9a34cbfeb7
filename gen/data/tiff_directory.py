"""Bytes of TIFF and BigTIFF: the header, and directories of tags.

TIFF 6.0 section 2, and https://www.awaresystems.be/imaging/tiff/bigtiff.html; little-endian.
tifffile and libtiff pull one level after the other, but a stream of rows fills all levels together.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal["ascii", "short", "long", "rational", "offset", "directory"]

# kind -> (code, format, bytes of one value), for offsets of 4 and of 8 bytes
_CLASSIC = {
    "ascii": (2, "B", 1),
    "short": (3, "H", 2),
    "long": (4, "I", 4),
    "rational": (5, "II", 8),
    "offset": (4, "I", 4),
    "directory": (13, "I", 4),
}
_BIG = {**_CLASSIC, "offset": (16, "Q", 8), "directory": (18, "Q", 8)}
_LARGEST_LONG = 2**32 - 1


@dataclass(frozen=True)
class Tag:
    """One field of a directory; rationals are flattened to numerator, denominator, ..."""

    number: int
    kind: Kind
    values: Sequence[int]

    @classmethod
    def text(cls, number: int, text: str) -> "Tag":
        """A field of ASCII text."""
        return cls(number, "ascii", text.encode("ascii") + b"\0")

    @classmethod
    def ratio(cls, number: int, value: float) -> "Tag":
        """A field of one positive number below 2^32, as the nearest fraction of two longs."""
        largest = min(10**6, int(_LARGEST_LONG / max(value, 1)))
        fraction = Fraction(value).limit_denominator(largest)
        return cls(number, "rational", (fraction.numerator, fraction.denominator))

    def pack(self, big: bool) -> tuple[bytes, bytes]:
        """Return (number, kind and count as stored, values as stored)."""
        code, value_format, size = (_BIG if big else _CLASSIC)[self.kind]
        data = struct.pack(f"<{len(self.values) * value_format[0]}", *self.values)
        return struct.pack("<HHQ" if big else "<HHI", self.number, code, len(data) // size), data


def pack_header(first_directory: int, big: bool) -> bytes:
    """The start of the file; `first_directory` is an offset in bytes."""
    if big:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first_directory)
    return struct.pack("<2sHI", b"II", 42, first_directory)


def pack_directory(tags: Sequence[Tag], offset: int, following: int, big: bool) -> bytes:
    """The directory of `tags` to be stored at `offset`, with values too long for a field after it.

    Args:
        tags: in any order, no number twice.
        offset: where the bytes go; even.
        following: offset of the next directory, 0 for the last.
    """
    count_format, offset_format, field_size = ("<Q", "<Q", 20) if big else ("<H", "<I", 12)
    inline = struct.calcsize(offset_format)
    end = offset + struct.calcsize(count_format) + len(tags) * field_size + inline
    fields, values = struct.pack(count_format, len(tags)), b""
    for tag in sorted(tags, key=lambda tag: tag.number):
        start, data = tag.pack(big)
        if len(data) <= inline:
            fields += start + data.ljust(inline, b"\0")
        else:
            fields += start + struct.pack(offset_format, end + len(values))
            values += data + b"\0" * (len(data) % 2)
    return fields + struct.pack(offset_format, following) + values
