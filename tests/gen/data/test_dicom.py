"""DICOM: right grey values, bounded cost, and objects that say they are synthetic."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_validator import complaints
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence

from gen.data.dicom import read_dicom, write_dicom
from gen.data.images import Limits, read_image, to_integers
from gen.data.provenance import Record
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    model="cxr-mini", weight_sha256="0" * 64, prompt="Épanchement \\ pleural", seed=7,
    scheduler="ddim", num_inference_steps=4, guidance_scale=4.0, height=4, width=6,
)  # fmt: skip
RAMP = np.arange(24, dtype=np.float32).reshape(4, 6) / 23
LEVELS = np.arange(24, dtype=np.uint16).reshape(4, 6) * 170  # 0 to 3910, as 12 bits

ReadInAChild = Callable[[str, bytes], tuple[str, float]]


def dicom(
    stored: np.ndarray = LEVELS, syntax: str = uid.ExplicitVRLittleEndian, **changes: Any
) -> Dataset:
    """A radiograph as a detector would write it; a change to None removes the element."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = "Canary^Patient"
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = (stored.ndim == 3 and 3) or 1
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = 12 if stored.dtype == np.uint16 else dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    if "BitsStored" in changes and "HighBit" not in changes:
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def content(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def compressed(frame: bytes, syntax: str, stored: np.ndarray, **changes: Any) -> bytes:
    dataset = dicom(stored, syntax, **changes)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return content(dataset)


def split(data: bytes, syntax: str) -> tuple[bytes, bytes]:
    """Return (preamble and file meta that name `syntax`, the data set that follows them)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    write_file_meta_info(stream, meta, enforce_standard=False)
    start = 144 + int.from_bytes(data[140:144], "little")
    return bytes(128) + b"DICM" + stream.getvalue(), data[start:]


def test_twelve_bits_span_zero_to_one() -> None:
    image = read_image(content(dicom(PixelSpacing=[0.2, 0.1])))
    np.testing.assert_allclose(image.pixels, LEVELS / 4095, atol=1e-6)
    assert (image.bits, image.modality, image.spacing_mm) == (12, "CR", (0.2, 0.1))


def test_the_detector_spacing_serves_where_no_calibrated_one_is_given() -> None:
    data = content(dicom(ImagerPixelSpacing=[0.3, 0.3], PixelSpacing=[]))
    assert read_dicom(data).spacing_mm == (0.3, 0.3)
    assert read_dicom(content(dicom())).spacing_mm is None


def test_monochrome1_is_turned_so_that_bone_is_bright() -> None:
    image = read_dicom(content(dicom(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_allclose(image.pixels, 1 - LEVELS / 4095, atol=1e-6)


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_every_uncompressed_syntax_reads_alike(syntax: uid.UID) -> None:
    dataset = dicom(LEVELS.astype(">u2") if syntax == uid.ExplicitVRBigEndian else LEVELS, syntax)
    dataset.BitsStored, dataset.HighBit = 12, 11
    np.testing.assert_allclose(read_dicom(content(dataset)).pixels, LEVELS / 4095, atol=1e-6)


def test_signed_pixels_with_a_window_in_rescaled_units_are_read_as_meant() -> None:
    hounsfield = np.linspace(-1000, 1000, 24).astype(np.int16).reshape(4, 6)
    window = {"WindowCenter": 40.5, "WindowWidth": 401, "RescaleSlope": 2, "RescaleIntercept": -24}
    image = read_dicom(content(dicom((hounsfield + 24) // 2, **window)))
    values = (hounsfield + 24) // 2 * 2 - 24
    np.testing.assert_allclose(image.pixels, np.clip((values + 160) / 400, 0, 1), atol=1e-5)


def test_signed_pixels_without_a_window_span_what_occurs() -> None:
    image = read_dicom(content(dicom(LEVELS.astype(np.int16) - 1000)))
    np.testing.assert_allclose(image.pixels, LEVELS / LEVELS.max(), atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2000, 1500), ([1000, 2], [512, 3]), (100, 1)])
def test_windows_agree_with_pydicom(function: str, center: Any, width: Any) -> None:
    dataset = dicom(WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    if (function, width) == ("LINEAR", 1):
        expected = (LEVELS > 99.5).astype(float)
    else:
        with np.errstate(over="ignore"):
            expected = apply_windowing(LEVELS, dataset) / 4095
    np.testing.assert_allclose(read_dicom(content(dataset)).pixels, expected, atol=1e-5)


def test_a_lookup_table_comes_before_the_window() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = np.arange(4095, -1, -1, dtype=np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    changes = {"WindowCenter": 1, "WindowWidth": 9, "VOILUTSequence": Sequence([table])}
    image = read_dicom(content(dicom(**changes)))
    np.testing.assert_allclose(image.pixels, 1 - LEVELS / 4095, atol=1e-6)


def test_colour_secondary_captures_become_luma() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    image = read_dicom(content(dicom(colours)))
    np.testing.assert_allclose(image.pixels, [[0.299, 0.587], [0.114, 9 / 255]], atol=1e-5)


def test_run_length_encoded_pixels_are_read() -> None:
    dataset = dicom()
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    np.testing.assert_allclose(read_dicom(content(dataset)).pixels, LEVELS / 4095, atol=1e-6)


@pytest.mark.parametrize("colour", [False, True])
def test_a_jpeg_inside_is_read(colour: bool) -> None:
    grey = to_integers(np.linspace(0, 1, 256).reshape(16, 16), 8)
    stored = np.stack([grey] * 3, axis=-1) if colour else grey
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=100, subsampling=0)
    changes = {"PhotometricInterpretation": "YBR_FULL_422"} if colour else {}
    data = compressed(stream.getvalue(), uid.JPEGBaseline8Bit, stored, **changes)
    np.testing.assert_allclose(read_dicom(data).pixels, grey / 255, atol=0.03)


def test_the_first_of_several_frames_is_read_where_they_are_allowed() -> None:
    dataset = dicom(PixelData=LEVELS.tobytes() + LEVELS[::-1].tobytes(), NumberOfFrames=2)
    with pytest.raises(UnsafeFile, match="max_frames is 1"):
        read_dicom(content(dataset))
    image = read_dicom(content(dataset), Limits(max_frames=2))
    np.testing.assert_allclose(image.pixels, LEVELS / 4095, atol=1e-6)


def test_a_deflated_file_is_refused_without_inflating_it(read_in_a_child: ReadInAChild) -> None:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflate.compress(bytes(2**20)) for _ in range(400)) + deflate.flush()
    start, _ = split(content(dicom()), uid.DeflatedExplicitVRLittleEndian)
    outcome, peak_mb = read_in_a_child("deflated.dcm", start + bomb)
    assert outcome.startswith("UnsafeFile: deflated.dcm has the transfer syntax 'Deflated")
    assert peak_mb < 200


def test_an_rle_bomb_is_refused_whichever_way_it_is_built(read_in_a_child: ReadInAChild) -> None:
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    bomb = header + b"\x81\0" * 2_000_000  # 4 MB that expand to 256 MB
    small = compressed(bomb, uid.RLELossless, np.zeros((8, 8), np.uint8))
    outcome, peak_mb = read_in_a_child("segment.dcm", small)
    assert "UnsafeFile: segment.dcm has an RLE segment larger" in outcome
    assert peak_mb < 200
    changes = {"Rows": 30_000, "Columns": 30_000}
    large = compressed(header + b"\x81\0", uid.RLELossless, np.zeros((8, 8), np.uint8), **changes)
    outcome, peak_mb = read_in_a_child("header.dcm", large)
    assert "UnsafeFile: header.dcm declares 30000 x 30000 pixels" in outcome
    assert peak_mb < 200


def test_a_truncated_file_is_refused_wherever_it_ends(read_in_a_child: ReadInAChild) -> None:
    data = content(dicom())
    for length in range(0, len(data) - 1, 3):
        with pytest.raises(UnsafeFile):
            read_dicom(data[:length])
    large = content(dicom(np.zeros((4000, 4000), np.uint16)))
    outcome, peak_mb = read_in_a_child("cut.dcm", large[:2000])
    assert "UnsafeFile: cut.dcm is truncated" in outcome
    assert peak_mb < 200


def test_a_header_of_countless_empty_items_is_given_up(read_in_a_child: ReadInAChild) -> None:
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + item * 500_000
    start, rest = split(content(dicom()), uid.ExplicitVRLittleEndian)
    outcome, peak_mb = read_in_a_child("items.dcm", start + sequence + rest)
    assert "too many elements" in outcome
    assert peak_mb < 200


def test_a_jpeg_larger_than_its_header_says_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("L", (64, 64)).save(stream, "JPEG")
    data = compressed(stream.getvalue(), uid.JPEGBaseline8Bit, np.zeros((8, 8), np.uint8))
    with pytest.raises(UnsafeFile, match="JPEG inside has 64 x 64"):
        read_dicom(data)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Rows": 0}, "at least one of each"),
        ({"Rows": 5000}, "max_side is 4096"),
        ({"Rows": 5}, "is truncated: it holds 48 bytes of pixels, but its header declares 60"),
        ({"Rows": None}, "no single Rows"),
        ({"NumberOfFrames": 0}, "at least one of each"),
        ({"NumberOfFrames": 1000}, "max_"),
        ({"PixelData": None}, "no PixelData"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation PALETTE"),
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel 1"),
        ({"BitsAllocated": 32}, "BitsAllocated 32"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"HighBit": 15}, "HighBit 15"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope 0"),
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "RescaleSlope"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": 0}, "NaN or infinite"),
        ({"WindowCenter": 10, "WindowWidth": 0}, "WindowWidth 0"),
        ({"WindowCenter": 1e6, "WindowWidth": 2}, "is constant"),
        ({"PixelSpacing": [0, 1]}, "pixel spacing of 0 x 1 mm"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_number_that_breaks_a_rule_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsafeFile, match=reason):
        read_dicom(content(dicom(**changes)))


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEGLosslessSV1, uid.MPEG2MPML, "1.2.3"])
def test_other_transfer_syntaxes_are_refused(syntax: str) -> None:
    start, rest = split(content(dicom()), syntax)
    with pytest.raises(UnsafeFile, match="only uncompressed, RLE Lossless and JPEG Baseline"):
        read_dicom(start + rest)


def test_a_long_list_of_windows_is_refused_before_it_is_parsed() -> None:
    dataset = dicom(syntax=uid.ImplicitVRLittleEndian, WindowWidth=5)
    dataset.WindowCenter = ["1"] * 40_000
    with pytest.raises(UnsafeFile, match=r"79999|80000 bytes in element \(0028,1050\)"):
        read_dicom(content(dataset))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    original = content(dicom(WindowCenter=2000, WindowWidth=1500, RescaleSlope=1))
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        mutated[data.draw(st.integers(132, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_dicom(bytes(mutated))
    except UnsafeFile:
        return
    assert 0 <= image.pixels.min() < image.pixels.max() <= 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    levels=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9)),
    bits=st.sampled_from([8, 16]),
    sop_class=st.sampled_from(["DX", "SC"]),
)
def test_a_written_object_gives_back_the_levels(
    tmp_path: Path, levels: np.ndarray, bits: int, sop_class: Any
) -> None:
    levels[0, 0], levels[0, 1] = 0, 65535
    if bits == 8:
        levels //= 257
    pixels = levels / (2**bits - 1)
    path = tmp_path / "x.dcm"
    write_dicom(path, pixels, RECORD, sop_class=sop_class, bits=bits, overwrite=True)
    image = read_image(path)
    assert image.bits == bits
    np.testing.assert_array_equal(to_integers(image.pixels, bits), levels)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, levels)


def test_an_object_says_that_it_is_synthetic_and_what_made_it(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x.dcm", RAMP, RECORD)
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    (equipment,) = dataset.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109100", "DCM")
    assert purpose.CodeMeaning == "Synthesizing Equipment"
    assert equipment.ManufacturerModelName == "cxr-mini"
    assert dataset.SyntheticData == "YES"
    assert dataset.ImageType == ["DERIVED", "SECONDARY"]
    assert dataset.BurnedInAnnotation == "NO"
    assert str(dataset.PatientName) == "Synthetic^Phantom"
    assert dataset.PatientID.startswith("SYNTHETIC-")
    assert "seed 7" in dataset.DerivationDescription
    assert "do not measure" in dataset.DerivationDescription
    assert "Épanchement / pleural" in dataset.ImageComments


def test_the_same_record_gives_the_same_bytes_and_another_one_other_uids(tmp_path: Path) -> None:
    other = RECORD.model_copy(update={"seed": 8})
    for name, record in (("a", RECORD), ("b", RECORD), ("c", other)):
        write_dicom(tmp_path / name, RAMP, record)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_dicom(tmp_path / "d", RAMP, RECORD, sop_class="SC")
    uids = {pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in "acd"}
    studies = {pydicom.dcmread(tmp_path / name).StudyInstanceUID for name in "acd"}
    assert (len(uids), len(studies)) == (3, 2)


def test_long_texts_fit_their_elements(tmp_path: Path) -> None:
    update = {"model": "m\\" * 500, "prompt": "é\n" * 4000, "software": "s" * 200}
    record = Record.model_validate({**RECORD.model_dump(), **update})
    write_dicom(tmp_path / "x.dcm", RAMP, record)
    assert len(pydicom.dcmread(tmp_path / "x.dcm").ManufacturerModelName) <= 64
    assert Record.from_file(tmp_path / "x.dcm") == record


def test_the_record_survives_a_change_of_syntax_but_not_of_private_elements(
    tmp_path: Path,
) -> None:
    write_dicom(tmp_path / "x.dcm", RAMP, RECORD)
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "implicit.dcm")
    assert Record.from_file(tmp_path / "implicit.dcm") == RECORD
    dataset.remove_private_tags()
    dataset.save_as(tmp_path / "plain.dcm")
    with pytest.raises(InvalidInput, match="private block MEDPHANTOM is missing"):
        Record.from_file(tmp_path / "plain.dcm")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sop_class": "CT"}, "'DX' and 'SC'"),
        ({"view": "up"}, "PA, AP, LL, RL"),
        ({"spacing_mm": (0, 1)}, "must be positive"),
        ({"bits": 12}, "8 or 16"),
    ],
)
def test_an_argument_that_cannot_be_written_is_named(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        write_dicom(tmp_path / "x.dcm", RAMP, RECORD, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sop_class", ["DX", "SC"])
@pytest.mark.parametrize("view", [None, "LL"])
@pytest.mark.parametrize("spacing_mm", [None, (0.5, 0.25)])
@pytest.mark.parametrize("bits", [8, 16])
def test_an_object_follows_its_iod(
    tmp_path: Path, sop_class: Any, view: str | None, spacing_mm: Any, bits: int
) -> None:
    path = tmp_path / "x.dcm"
    write_dicom(
        path, RAMP, RECORD, sop_class=sop_class, view=view, spacing_mm=spacing_mm, bits=bits
    )
    dataset = pydicom.dcmread(path)
    assert dataset.Modality == {"DX": "DX", "SC": "OT"}[sop_class]
    spacing = dataset.get("ImagerPixelSpacing" if sop_class == "DX" else "PixelSpacing")
    nominal = [430 / 6] * 2 if sop_class == "DX" else []
    assert list(spacing or []) == pytest.approx(list(spacing_mm or nominal))
    for keyword in ("PatientBirthDate", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID"):
        assert keyword in dataset
    assert complaints(path) == []
