"""Pictures that callers send inside JSON, as base64: of tissue, or radiographs.

Everything is checked from the header, before a pixel is decoded. In the job store and in answers a
digest stands for the picture; its bytes lie in the sink until the job is forgotten.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import GetPydanticSchema, WithJsonSchema
from pydantic_core import core_schema

from gen.data.limits import Limits, boundary
from gen.errors import InvalidInput, UnsafeFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.TiffImagePlugin import TiffImageFile

    from gen.data.medical_image import MedicalImage

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LARGEST_TILE = 4096  # pixels a side; more is memory that a small file can ask for
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True)
class Upload:
    """A picture in colour as it was sent, PNG, JPEG or TIFF, which has passed `check`.

    Args:
        data: the file.
        limits: what it may cost.
    """

    data: bytes
    limits: Limits

    @property
    def digest(self) -> str:
        """SHA-256 of the file, as hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()

    def to_base64(self) -> str:
        """As it came."""
        return base64.b64encode(self.data).decode()

    def to_digest(self) -> dict[str, Any]:
        """What stands for the picture where its pixels have no business."""
        return {"sha256": self.digest, "bytes": len(self.data)}

    def check(self) -> None:
        """Raise UnsafeFile unless the file may be decoded, by its header."""
        from gen.data.images import stored_size

        if self.data.startswith(TIFF_STARTS):
            _open_tiff(self.data, self.limits)
        elif self.data.startswith((PNG_START, JPEG_START)):
            height, width = stored_size(self.data, self.limits)
            self.limits.check_shape("the picture", width, height)
        else:
            raise UnsafeFile("the picture is no PNG, JPEG or TIFF; convert it to PNG")

    def decode(self) -> "NDArray[np.uint8]":
        """Pixels (H, W, 3), RGB; of a pyramid the largest level. Raises UnsafeFile."""
        import numpy as np

        from gen.data.images import read_colour

        if not self.data.startswith(TIFF_STARTS):
            return read_colour(self.data, self.limits)
        picture = _open_tiff(self.data, self.limits)
        with boundary("the picture"):
            return np.asarray(picture.convert("RGB"))


@dataclass(frozen=True)
class Radiograph(Upload):
    """A grey picture of 8 or 16 bits as it was sent: PNG, JPEG or DICOM."""

    @property
    def is_dicom(self) -> bool:
        """Whether it says whose it is, so that what is derived may join its study."""
        return self.data[128:132] == b"DICM"

    def check(self) -> None:
        """Raise UnsafeFile unless the file may be decoded, by its header."""
        from gen.data.dicom_header import parse_dicom, quiet
        from gen.data.dicom_pixels import check_pixels
        from gen.data.images import stored_size

        if self.is_dicom:
            header = parse_dicom("the picture", self.data)
            with boundary("the picture"), quiet():
                check_pixels("the picture", header, self.limits)
        elif self.data.startswith((PNG_START, JPEG_START)):
            height, width = stored_size(self.data, self.limits)
            self.limits.check_shape("the picture", width, height)
        else:
            raise UnsafeFile("the picture is no PNG, JPEG or DICOM; convert it to PNG")

    def grey(self) -> "MedicalImage":
        """As it should be looked at. Raises UnsafeFile."""
        from gen.data.images import read_image

        return read_image(self.data, self.limits)


def _open_tiff(data: bytes, limits: Limits) -> "TiffImageFile":
    """The first image of a TIFF, checked; the plugin is called directly, as for PNG and JPEG."""
    from PIL.TiffImagePlugin import TiffImageFile

    if len(data) > limits.max_bytes:
        raise UnsafeFile(f"the picture has {len(data)} bytes, but max_bytes is {limits.max_bytes}")
    with boundary("the picture"):
        picture = TiffImageFile(BytesIO(data))
        sides = [int(picture.tag_v2.get(tag, 1)) for tag in (322, 323)]  # TileWidth, TileLength
    limits.check_shape("the picture", *picture.size)
    if picture.mode not in ("L", "RGB", "RGBA", "P", "1"):
        raise UnsafeFile(
            f"the picture has pixels of the kind {picture.mode}, but colour is read with 8 bits;"
            " save it as RGB"
        )
    if max(sides) > LARGEST_TILE:
        raise UnsafeFile(f"the picture has tiles of {max(sides)} pixels; write it with 256")
    return picture


def upload_schema(limits: Limits, kind: type[Upload] = Upload) -> tuple[Any, Any]:
    """What makes `Annotated[Upload, *upload_schema(limits)]` a field: base64 in JSON."""
    longest = -(-limits.max_bytes // 3) * 4

    def parse(value: Any) -> Upload:
        if isinstance(value, Upload):
            return value
        if not isinstance(value, str) or not value:
            raise ValueError("must be a file in base64")
        if len(value) > longest:
            raise ValueError(f"has more than {limits.max_bytes} bytes; send a smaller file")
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is no base64 (RFC 4648, section 4, without line breaks)") from None
        upload = kind(data, limits)
        try:
            upload.check()
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return upload

    schema = core_schema.no_info_plain_validator_function(
        parse,
        serialization=core_schema.plain_serializer_function_ser_schema(
            Upload.to_base64, when_used="json"
        ),
    )
    described = {"type": "string", "contentEncoding": "base64", "minLength": 1}
    return (
        GetPydanticSchema(lambda _, __: schema),
        WithJsonSchema({**described, "maxLength": longest}),
    )
