"""Volumes come as upright slices, maps go back to the same voxels, and reading has a bound."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform

from gen.data.limits import STACK_LIMITS, Limits
from gen.data.nifti import read_nifti, write_nifti
from gen.data.provenance import Record
from gen.data.volume_axes import VolumeAxes
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    task="anomaly_map", model="brain", weight_sha256="0" * 64, prompt="", seed=7,
    scheduler="ddim", num_inference_steps=4, guidance_scale=1.0, height=8, width=8,
)  # fmt: skip
RAS = np.diag([2.0, 3.0, 5.0, 1.0])
CODES = [
    (x, y, z)
    for axes in (("RL", "AP", "SI"), ("AP", "SI", "RL"), ("SI", "RL", "AP"), ("AP", "RL", "SI"))
    for x in axes[0]
    for y in axes[1]
    for z in axes[2]
]


def ramp(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    """Voxels that each have their own value."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def image(voxels: np.ndarray, affine: np.ndarray = RAS, kind: Any = nibabel.Nifti1Image) -> Any:
    return kind(voxels, affine)


def reoriented(codes: tuple[str, str, str]) -> Any:
    """The same patient as `image(ramp())`, stored along other axes."""
    transform = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return image(ramp()).as_reoriented(transform)


@pytest.mark.parametrize("codes", CODES, ids="".join)
def test_axial_slices_are_upright_however_the_volume_is_stored(codes: Any) -> None:
    volume = read_nifti(reoriented(codes).to_bytes(), window=(0, 119))
    for index in range(6):  # from feet to head, front first, the patient's right first
        expected = ramp()[::-1, ::-1, index].T / 119
        np.testing.assert_allclose(volume.slices[index], expected, atol=1e-6)
    assert volume.spacing_mm == (5, 3, 2)


@pytest.mark.parametrize(
    ("axis", "spacing", "first"),
    [
        (0, (2, 5, 3), ramp()[0, ::-1, ::-1].T),  # sagittal: head first, front first
        (1, (3, 5, 2), ramp()[::-1, 0, ::-1].T),  # coronal: head first, the right first
    ],
)
def test_the_axis_may_be_chosen(axis: int, spacing: Any, first: np.ndarray) -> None:
    volume = read_nifti(image(ramp()).to_bytes(), window=(0, 119), axis=axis)
    np.testing.assert_allclose(volume.slices[0], first / 119, atol=1e-6)
    assert volume.spacing_mm == spacing


@pytest.mark.parametrize("codes", CODES, ids="".join)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_map_lies_on_the_voxels_of_its_source(
    tmp_path: Path, codes: Any, axis: int | None
) -> None:
    source = reoriented(codes)
    volume = read_nifti(source.to_bytes(), window=(-100, 300), axis=axis)
    path = tmp_path / "map.nii.gz"
    write_nifti(path, volume.slices, volume, RECORD)
    written = nibabel.load(path)
    np.testing.assert_array_equal(written.affine, source.affine)
    expected = (source.get_fdata() + 100) / 400
    np.testing.assert_allclose(written.get_fdata(), expected, atol=1e-6)
    assert written.get_data_dtype() == np.float32


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), axis=st.sampled_from([None, 0, 1, 2]))
def test_slices_go_back_to_their_voxels_for_any_rotation(seed: int, axis: int | None) -> None:
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * generator.uniform(0.5, 4, 3)
    axes = VolumeAxes.of("x", affine, axis)
    voxels = ramp()
    np.testing.assert_array_equal(axes.to_voxels(axes.to_slices(voxels)), voxels)
    if axis is not None:
        assert axes.order[0] == axis


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_codes_and_units_are_kept_but_no_text(tmp_path: Path, kind: Any) -> None:
    source = image(ramp((4, 5, 6, 1)).astype(np.int16), kind=kind)
    source.header.set_xyzt_units("mm", "sec")
    source.set_sform(RAS, code=4)
    source.set_qform(RAS, code=1)
    source.header["descrip"] = b"Canary^Patient"
    source.header["aux_file"] = b"canary"
    source.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"canary"))
    volume = read_nifti(source.to_bytes())
    write_nifti(tmp_path / "x.nii", volume.slices, volume, RECORD)
    written = nibabel.load(tmp_path / "x.nii")
    assert type(written) is kind
    assert written.shape == (4, 5, 6, 1)
    for keyword in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(written.header[keyword], source.header[keyword])
    assert b"anary" not in (tmp_path / "x.nii").read_bytes()
    (note,) = written.header.extensions
    assert json.loads(note.get_content().rstrip(b"\0")) == json.loads(RECORD.to_json())


def test_a_file_without_a_transform_gets_none(tmp_path: Path) -> None:
    source = nibabel.Nifti1Image(ramp(), None)
    volume = read_nifti(source.to_bytes())
    write_nifti(tmp_path / "x.nii", volume.slices, volume, RECORD)
    header = nibabel.load(tmp_path / "x.nii").header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = read_nifti(image(ramp()).to_bytes())
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, volume.slices, volume, RECORD)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with pytest.raises(InvalidInput, match="not overwritten"):
        write_nifti(tmp_path / "a.nii.gz", volume.slices, volume, RECORD)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_every_kind_of_number_is_read_in_its_unit(tmp_path: Path, kind: str) -> None:
    source = image(ramp().astype(kind))
    source.header.set_data_dtype(kind)
    source.header.set_slope_inter(1, 0)
    if kind.startswith(">"):
        source = nibabel.Nifti1Image(source.dataobj, RAS, source.header.as_byteswapped(">"))
    nibabel.save(source, tmp_path / "x.nii")
    volume = read_nifti(tmp_path / "x.nii", window=(0, 119))
    np.testing.assert_allclose(volume.slices[0], ramp()[::-1, ::-1, 0].T / 119, atol=1e-6)


def test_slope_and_intercept_come_before_the_window() -> None:
    source = image(ramp().astype(np.int16))
    data = bytearray(source.to_bytes())
    data[112:120] = np.array([2, -1000], "<f4").tobytes()
    volume = read_nifti(bytes(data), window=(-1000, 1000))
    np.testing.assert_allclose(volume.slices[0], ramp()[::-1, ::-1, 0].T * 2 / 2000, atol=1e-6)


def test_without_a_window_all_but_the_outermost_values_are_told_apart() -> None:
    voxels = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    voxels[3, 4, 5] = 1e6
    volume = read_nifti(image(voxels).to_bytes())
    assert volume.window == pytest.approx((0.005, 0.995), abs=0.005)
    few = np.zeros((20, 20, 20), np.float32)
    few[1, 2, 3] = 7
    assert read_nifti(image(few).to_bytes()).window == (0, 7)


def test_a_flat_file_is_one_slice(tmp_path: Path) -> None:
    volume = read_nifti(image(ramp((4, 5))).to_bytes())
    assert volume.slices.shape == (1, 5, 4)
    write_nifti(tmp_path / "x.nii", volume.slices, volume, RECORD)
    assert nibabel.load(tmp_path / "x.nii").shape == (4, 5)


def test_a_window_that_shows_nothing_is_refused() -> None:
    with pytest.raises(UnsafeFile, match="constant within the window 500 to 600"):
        read_nifti(image(ramp()).to_bytes(), window=(500, 600))


def header_with(**changes: Any) -> bytes:
    data = image(ramp()).to_bytes()
    header = nibabel.Nifti1Header(data[:348], check=False)
    for keyword, value in changes.items():
        header[keyword] = value
    return bytes(header.binaryblock) + data[348:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no NIfTI file"),
        (b"\x89PNG" + bytes(600), "no NIfTI file"),
        (header_with(magic=b"ni1"), "no NIfTI file in one piece"),
        (header_with(dim=[3, 9999, 5, 6, 1, 1, 1, 1]), "max_side is 4096"),
        (header_with(dim=[3, 4, 5, 2000, 1, 1, 1, 1]), "max_frames is 512"),
        (header_with(dim=[3, 2000, 2000, 500, 1, 1, 1, 1]), "max_pixels"),
        (header_with(dim=[3, 4, 5, -6, 1, 1, 1, 1]), "at least one"),
        (header_with(dim=[4, 4, 5, 3, 2, 1, 1, 1]), "split it first"),
        (header_with(dim=[3, 4, 5, 7, 1, 1, 1, 1]), "is truncated"),
        (header_with(datatype=128), "voxels of type"),
        (header_with(datatype=32), "voxels of type complex64"),
        (header_with(datatype=1234), "cannot be decoded"),
        (header_with(vox_offset=10), "voxels at byte 10"),
        (header_with(vox_offset=1e9), "voxels at byte 1000000000"),
        (header_with(srow_x=[0, 0, 0, 0]), "singular affine"),
        (header_with(srow_x=[np.nan, 0, 0, 0]), "singular affine"),
        (image(ramp() * 0 + 3).to_bytes(), "is constant"),
        (image(ramp() + np.nan).to_bytes(), "NaN or infinite"),
        (gzip.compress(image(ramp()).to_bytes())[:-40], "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bad_file_is_refused_with_the_reason(data: bytes, reason: str, compressed: bool) -> None:
    if compressed and not data.startswith(b"\x1f\x8b"):
        data = gzip.compress(data)
    with pytest.raises(UnsafeFile, match=reason):
        read_nifti(data)


CHILD = """
import sys
from gen.data.nifti import read_nifti
try:
    outcome = str(read_nifti(sys.argv[1]).slices.shape)
except Exception as error:
    outcome = f"{type(error).__name__}: {error}"
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(f"{peak} {outcome}")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("start", "outcome"), [(image(ramp()).to_bytes(), "(6, 5, 4)"), (b"", "no NIfTI file")]
)
def test_a_compressed_bomb_is_not_expanded(tmp_path: Path, start: bytes, outcome: str) -> None:
    with gzip.open(tmp_path / "x.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(start)
        for _ in range(300):
            stream.write(bytes(2**20))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "x.nii.gz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, _, said = done.stdout.partition(" ")
    assert outcome in said
    assert float(peak) < 200


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    mutated = bytearray(image(ramp()).to_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        mutated[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    try:
        volume = read_nifti(bytes(mutated))
    except UnsafeFile:
        return
    assert 0 <= volume.slices.min() < volume.slices.max() <= 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"axis": 3}, "0, 1, 2 or None"),
        ({"window": (5, 5)}, "low below high"),
        ({"window": (0, np.nan)}, "low below high"),
        ({"limits": Limits(max_frames=3)}, "max_frames is 3"),
    ],
)
def test_an_argument_that_breaks_its_rule_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_nifti(image(ramp()).to_bytes(), **{"limits": STACK_LIMITS, **changes})


def test_a_map_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    volume = read_nifti(image(ramp()).to_bytes())
    with pytest.raises(InvalidInput, match=r"must end in \.nii"):
        write_nifti(tmp_path / "x.img", volume.slices, volume, RECORD)
    with pytest.raises(InvalidInput, match="have the shape"):
        write_nifti(tmp_path / "x.nii", volume.slices[1:], volume, RECORD)
    assert list(tmp_path.iterdir()) == []
