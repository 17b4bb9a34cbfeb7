"""A finished image in another file format, with the record it came with."""

import io

from gen.data.dicom import encode_dicom
from gen.data.images import encode_png, read_image
from gen.data.previews import preview_png
from gen.data.provenance import Record


def to_png(data: bytes, record: Record) -> bytes:
    """An 8-bit PNG of a PNG or DICOM file."""
    stream = io.BytesIO()
    encode_png(stream, read_image(data).pixels, record)
    return stream.getvalue()


def to_dicom(data: bytes, record: Record) -> bytes:
    """A DX object of a PNG or DICOM file; the same record gives the same UIDs."""
    stream = io.BytesIO()
    encode_dicom(stream, read_image(data).pixels, record)
    return stream.getvalue()


def to_thumbnail(data: bytes, record: Record) -> bytes:
    """A small PNG, for lists."""
    del record  # of the image, not of its thumbnail
    return preview_png(read_image(data).pixels)
