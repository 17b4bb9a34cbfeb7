"""Masks lie on the pixels of their source, in its study, and say what made them."""

import logging
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    COLUMNS,
    NUM_FRAMES,
    ROWS,
    SOURCES,
    enhanced,
    radiograph,
    secondary_capture,
    slices,
)
from dicom_validator import complaints
from pydicom.dataset import Dataset

from gen.data.dicom import encode_dicom
from gen.data.dicom_segmentation import build_segmentation, write_segmentation
from gen.data.dicom_source import read_source
from gen.data.provenance import Record
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    task="anomaly_map", model="cxr-mini", weight_sha256="0" * 64, prompt="a secret sentence",
    seed=7, scheduler="ddim", num_inference_steps=4, guidance_scale=1.0, height=8, width=8,
)  # fmt: skip


def mask_for(sources: list[Dataset]) -> np.ndarray:
    frames = sum(int(source.get("NumberOfFrames", 1)) for source in sources)
    mask = np.random.default_rng(0).random((frames, ROWS, COLUMNS)) > 0.6
    mask[0, 0, COLUMNS - 1], mask[0, ROWS - 1, 0] = True, False
    return mask


@pytest.mark.parametrize("fractional", [False, True])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_segmentation_follows_its_iod_and_gives_back_the_mask(
    tmp_path: Path, kind: str, fractional: bool
) -> None:
    sources = SOURCES[kind]
    mask: np.ndarray = mask_for(sources)
    if fractional:
        mask = mask * 0.8
    write_segmentation(tmp_path / "x.dcm", mask, sources, RECORD)
    assert complaints(tmp_path / "x.dcm") == []
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    assert dataset.SegmentationType == ("FRACTIONAL" if fractional else "BINARY")
    stored = dataset.pixel_array.reshape(mask.shape)
    np.testing.assert_array_equal(stored, np.rint(mask * 255) if fractional else mask)


@pytest.mark.parametrize("kind", SOURCES)
def test_another_reader_finds_each_plane_by_its_source(tmp_path: Path, kind: str) -> None:
    sources = SOURCES[kind]
    mask = mask_for(sources)
    write_segmentation(tmp_path / "x.dcm", mask, sources, RECORD)
    segmentation = highdicom.seg.segread(tmp_path / "x.dcm")
    if "NumberOfFrames" in sources[0]:
        found = segmentation.get_pixels_by_source_frame(
            sources[0].SOPInstanceUID, range(1, NUM_FRAMES + 1)
        )
    else:
        found = segmentation.get_pixels_by_source_instance(
            [source.SOPInstanceUID for source in sources]
        )
    np.testing.assert_array_equal(found[..., 0], mask)


@pytest.mark.parametrize("sources", [slices(), [enhanced()]], ids=["CT", "MR"])
def test_each_plane_lies_where_its_source_lies(sources: list[Dataset]) -> None:
    dataset = build_segmentation(mask_for(sources), sources, RECORD)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    positions = [
        list(frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in dataset.PerFrameFunctionalGroupsSequence
    ]
    thickness = 2.5 if len(sources) > 1 else 3
    assert np.diff(np.array(positions)[:, 2]) == pytest.approx([thickness] * 2)
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.2, 0.1]
    assert dataset.FrameOfReferenceUID == "1.2.3.9"


def test_a_single_plane_may_come_without_a_frame_axis() -> None:
    mask = mask_for([radiograph()])
    whole, plane = (build_segmentation(each, [radiograph()], RECORD) for each in (mask, mask[0]))
    assert whole == plane


def test_a_segmentation_joins_its_source_and_says_what_made_it() -> None:
    dataset = build_segmentation(mask_for([radiograph()]), [radiograph()], RECORD)
    assert str(dataset.PatientName) == "Canärie^Patient"
    assert (dataset.PatientID, dataset.PatientSex) == ("CANARY-7", "F")
    assert (dataset.StudyInstanceUID, dataset.ContentDate) == ("1.2.3", "20200304")
    assert dataset.SeriesInstanceUID != radiograph().SeriesInstanceUID
    assert dataset.SyntheticData == "YES"
    (equipment,) = dataset.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
    (algorithm,) = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert algorithm.AlgorithmSource == "cxr-mini"
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.1"
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert "SYNTHETIC" not in str(dataset.PatientID)


def test_names_in_any_character_set_survive(tmp_path: Path) -> None:
    source = radiograph()
    source.SpecificCharacterSet = "GB18030"
    source.PatientName = "Wang^XiaoDong=王^小东"
    source.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    source = read_source(tmp_path / "source.dcm")
    write_segmentation(tmp_path / "x.dcm", mask_for([source]), [source], RECORD)
    assert str(pydicom.dcmread(tmp_path / "x.dcm").PatientName) == "Wang^XiaoDong=王^小东"


def test_the_same_arguments_give_the_same_bytes_and_others_another_uid(tmp_path: Path) -> None:
    mask = mask_for([radiograph()])
    other = RECORD.model_copy(update={"seed": 8})
    source = radiograph()
    source.SOPInstanceUID = "1.2.3.5"
    for name, arguments in {
        "a": (mask, [radiograph()], RECORD),
        "b": (mask.copy(), [radiograph()], RECORD),
        "c": (~mask, [radiograph()], RECORD),
        "d": (mask, [radiograph()], other),
        "e": (mask, [source], RECORD),
    }.items():
        write_segmentation(tmp_path / name, *arguments)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_segmentation(tmp_path / "f", mask, [radiograph()], RECORD, label="Opacity")
    uids = {pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in "acdef"}
    assert len(uids) == 5


def test_the_record_is_read_back_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pydicom.config.disable_value_validation():
        source = radiograph()
        source.StudyDate, source.PatientSex = "2020.03.04", "canary"
        source.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    source = read_source(tmp_path / "source.dcm")
    write_segmentation(tmp_path / "x.dcm", mask_for([source]), [source], RECORD)
    assert caplog.text == ""
    assert Record.from_file(tmp_path / "x.dcm") == RECORD
    written = pydicom.dcmread(tmp_path / "x.dcm")
    written.remove_private_tags()
    assert "secret" not in str(written)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_is_read_without_its_pixels(tmp_path: Path, kind: str) -> None:
    for index, source in enumerate(SOURCES[kind]):
        source.save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    read = [read_source(tmp_path / f"{index}.dcm") for index in range(len(SOURCES[kind]))]
    assert "PixelData" not in read[0]
    mask = mask_for(read)
    whole, part = (build_segmentation(mask, each, RECORD) for each in (SOURCES[kind], read))
    assert whole == part


def test_a_source_of_our_own_will_do(tmp_path: Path) -> None:
    pixels = np.linspace(0, 1, ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    with (tmp_path / "source.dcm").open("wb") as stream:
        encode_dicom(stream, pixels, RECORD)
    write_segmentation(
        tmp_path / "x.dcm", pixels > 0.5, [read_source(tmp_path / "source.dcm")], RECORD
    )
    assert complaints(tmp_path / "x.dcm") == []


def test_an_empty_mask_is_an_answer_too(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "x.dcm", np.zeros((ROWS, COLUMNS), bool), [radiograph()], RECORD)
    assert complaints(tmp_path / "x.dcm") == []


@pytest.mark.parametrize(
    ("mask", "sources", "reason"),
    [
        (np.zeros((COLUMNS, ROWS), bool), [radiograph()], r"mask has the shape \(1, 7, 5\)"),
        (np.zeros((ROWS, COLUMNS), bool), slices(), r"\(3, 5, 7\)"),
        (np.zeros((ROWS, COLUMNS), int), [radiograph()], "must be bool, or float"),
        (np.full((ROWS, COLUMNS), np.nan), [radiograph()], "must be bool, or float"),
        (np.full((ROWS, COLUMNS), 1.5), [radiograph()], "must be bool, or float"),
        (np.zeros((2, ROWS, COLUMNS), bool), [radiograph(), secondary_capture()], None),
        (np.zeros((ROWS, COLUMNS), bool), [], "sources is empty"),
    ],
)
def test_what_does_not_fit_its_source_is_refused(mask: Any, sources: Any, reason: str) -> None:
    if reason is None:
        sources[1].StudyInstanceUID, reason = "9.9", "differ in StudyInstanceUID"
    with pytest.raises(InvalidInput, match=reason):
        build_segmentation(mask, sources, RECORD)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"NumberOfFrames": 10**9}, "max_"), ({"Rows": 0}, "at least one"), ({"Rows": 9999}, "max_")],
)
def test_a_source_that_declares_too_much_is_refused(
    tmp_path: Path, changes: dict[str, int], reason: str
) -> None:
    source = enhanced()
    for keyword, value in changes.items():
        setattr(source, keyword, value)
    source.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(UnsafeFile, match=reason):
        read_source(tmp_path / "x.dcm")


def test_a_source_without_identity_is_refused() -> None:
    source = radiograph()
    del source.StudyInstanceUID
    with pytest.raises(InvalidInput, match="no StudyInstanceUID"):
        build_segmentation(mask_for([source]), [source], RECORD)
