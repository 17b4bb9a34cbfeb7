"""What a DICOM file's pixels cost to decode, checked before any of them is."""

from itertools import islice
from struct import unpack

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments

from gen.data.dicom_elements import number, one_of
from gen.data.limits import Limits
from gen.data.pictures import open_picture
from gen.errors import UnsafeFile

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")
_MAX_FRAGMENTS = 4096


def check_pixels(name: str, dataset: Dataset, limits: Limits) -> None:
    """Check every number that decides what decoding costs, then the pixel data against them."""
    rows, columns = number(name, dataset, "Rows"), number(name, dataset, "Columns")
    frames = number(name, dataset, "NumberOfFrames", default=1)
    limits.check_shape(name, columns, rows, frames)
    photometric = one_of(name, dataset, "PhotometricInterpretation", (*_GREY, *_COLOUR))
    samples = 1 if photometric in _GREY else 3
    one_of(name, dataset, "SamplesPerPixel", (samples,))
    allocated = one_of(name, dataset, "BitsAllocated", (8, 16))
    one_of(name, dataset, "PixelRepresentation", (0, 1))
    stored = one_of(name, dataset, "BitsStored", tuple(range(1, allocated + 1)))
    one_of(name, dataset, "HighBit", (stored - 1,))
    if not dataset.get("PixelData"):
        raise UnsafeFile(f"{name} has no PixelData, but a picture is needed; is it truncated?")
    if dataset.file_meta.TransferSyntaxUID in (uid.RLELossless, uid.JPEGBaseline8Bit):
        _check_frames(name, dataset, frames, limits)
        return
    expected = rows * columns * frames * samples * allocated // 8
    if photometric == "YBR_FULL_422":
        raise UnsafeFile(f"{name} is uncompressed YBR_FULL_422, which is not read; convert to RGB")
    if len(dataset.PixelData) < expected:
        raise UnsafeFile(
            f"{name} is truncated: it holds {len(dataset.PixelData)} bytes of pixels, but its "
            f"header declares {expected}; export it again"
        )


def _check_frames(name: str, dataset: Dataset, frames: int, limits: Limits) -> None:
    """Check the compressed frames, and drop the offset tables and fragments around them."""
    parts = generate_fragments(dataset.PixelData)
    next(parts, None)  # the basic offset table
    fragments = list(islice(parts, _MAX_FRAGMENTS))
    if next(parts, None) is not None:
        raise UnsafeFile(f"{name} has more than {_MAX_FRAGMENTS} fragments; export it uncompressed")
    if frames == 1:
        fragments = [b"".join(fragments)]
    elif len(fragments) != frames:
        raise UnsafeFile(
            f"{name} has {len(fragments)} fragments for {frames} compressed frames, but one for "
            "each is needed; export it uncompressed"
        )
    for frame in fragments:
        if dataset.file_meta.TransferSyntaxUID == uid.RLELossless:
            _check_rle(name, dataset, frame)
        else:
            _check_jpeg(name, dataset, frame, limits)
    dataset.PixelData = encapsulate(fragments, has_bot=False)
    dataset["PixelData"].is_undefined_length = True


def _check_jpeg(name: str, dataset: Dataset, frame: bytes, limits: Limits) -> None:
    picture = open_picture(f"the JPEG inside {name}", frame, limits)
    mode = "L" if dataset.SamplesPerPixel == 1 else "RGB"
    if picture.format != "JPEG" or "mp" in picture.info or picture.mode != mode:
        raise UnsafeFile(f"{name} must hold one {mode} JPEG; export it uncompressed")
    if picture.size != (dataset.Columns, dataset.Rows) or dataset.BitsAllocated != 8:
        raise UnsafeFile(
            f"{name} declares {dataset.Columns} x {dataset.Rows} pixels of {dataset.BitsAllocated} "
            f"bits, but the JPEG inside has {picture.size[0]} x {picture.size[1]} of 8; export it "
            "uncompressed"
        )


def _check_rle(name: str, dataset: Dataset, frame: bytes) -> None:
    """Add up what each segment expands to (PS3.5 Annex G): two bytes may become 128."""
    count, *offsets = unpack("<16L", frame[:64])
    if count != dataset.SamplesPerPixel * dataset.BitsAllocated // 8:
        raise UnsafeFile(
            f"{name} has {count} RLE segments, which does not fit its samples and bits"
        )
    ends = [*offsets[1:count], len(frame)]
    most = dataset.Rows * dataset.Columns + 128  # and the padding of the last run
    for start, end in zip(offsets[:count], ends, strict=True):
        if not 64 <= start <= end <= len(frame) or _expands_beyond(frame, start, end, most):
            raise UnsafeFile(
                f"{name} has an RLE segment larger than the {most} bytes that its header declares; "
                "export it uncompressed"
            )


def _expands_beyond(frame: bytes, position: int, end: int, most: int) -> bool:
    size = 0
    while position < end and size <= most:
        head = frame[position]
        size += 0 if head == 128 else head + 1 if head < 128 else 257 - head
        position += 1 if head == 128 else head + 2 if head < 128 else 2
    return size > most
