"""Directories, read back by another library."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tifffile import TiffFile

from gen.data.tiff_directory import Tag, pack_directory, pack_header

TAGS = [
    Tag.text(305, "odd"),  # 4 bytes with its end: fits into a classic field
    Tag.text(270, "longer text"),
    Tag(258, "short", [8, 8, 8]),
    Tag(257, "long", [1]),
    Tag(256, "long", [1]),
    Tag.ratio(282, 20_000),
]


@pytest.mark.parametrize("big", [False, True])
def test_two_directories_are_read_back_in_order(big: bool) -> None:
    first = 2**5
    size = len(pack_directory(TAGS, first, 0, big))
    assert size % 2 == 0
    data = pack_header(first, big).ljust(first, b"\0")
    data += pack_directory(TAGS, first, first + size, big)
    data += pack_directory([Tag(256, "long", [7])], first + size, 0, big)
    with TiffFile(BytesIO(data)) as tiff:
        assert tiff.is_bigtiff == big
        assert len(tiff.pages) == 2
        values = {tag.code: tag.value for tag in tiff.pages[0].tags}
        assert values == {
            256: 1, 257: 1, 258: (8, 8, 8), 270: "longer text", 282: (20_000, 1), 305: "odd",
        }  # fmt: skip
        assert [tag.code for tag in tiff.pages[0].tags] == sorted(values)
        assert tiff.pages[1].tags[256].value == 7


def test_offsets_beyond_four_gibibytes_keep_all_their_bits() -> None:
    far = [2**33 + 2, 2**40]
    data = pack_header(16, True) + pack_directory([Tag(324, "offset", far)], 16, 0, True)
    with TiffFile(BytesIO(data)) as tiff:
        assert tiff.pages[0].tags[324].value == tuple(far)


@given(st.floats(1e-6, 1e7))
def test_a_ratio_is_the_number_to_six_digits_and_fits_two_longs(value: float) -> None:
    numerator, denominator = Tag.ratio(282, value).values
    assert 0 <= numerator < 2**32
    assert 1 <= denominator < 2**32
    assert numerator / denominator == pytest.approx(value, rel=1e-6, abs=1e-6)
