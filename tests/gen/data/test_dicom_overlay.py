"""Overlays are colour pictures in the study of their source, marked as derived and synthetic."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_sources import COLUMNS, ROWS, SOURCES, enhanced, radiograph
from dicom_validator import complaints

from gen.data.dicom_overlay import build_overlay, write_overlay
from gen.data.provenance import Record
from gen.errors import InvalidInput

RECORD = Record(
    task="anomaly_map", model="cxr-mini", weight_sha256="0" * 64, prompt="a secret sentence",
    seed=7, scheduler="ddim", num_inference_steps=4, guidance_scale=1.0, height=8, width=8,
)  # fmt: skip
COLOURS = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", SOURCES)
def test_an_overlay_follows_its_iod_and_gives_back_its_colours(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind][0]
    write_overlay(tmp_path / "x.dcm", COLOURS, source, RECORD)
    assert complaints(tmp_path / "x.dcm") == []
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, COLOURS)
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.PatientID == source.PatientID
    assert dataset.SyntheticData == "YES"
    assert dataset.ImageType == ["DERIVED", "SECONDARY"]
    assert "no diagnosis" in dataset.DerivationDescription
    assert dataset.BurnedInAnnotation == ("NO" if kind == "CR" else "YES")
    assert dataset.LossyImageCompression == ("01" if kind == "DX" else "00")
    (reference,) = dataset.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.get("ReferencedFrameNumber") == (1 if "NumberOfFrames" in source else None)
    assert Record.from_file(tmp_path / "x.dcm") == RECORD


def test_overlays_of_two_frames_share_a_series_but_not_an_identity() -> None:
    first, last = (build_overlay(COLOURS, enhanced(), RECORD, frame=frame) for frame in (0, 2))
    assert last.SourceImageSequence[0].ReferencedFrameNumber == 3
    assert last.PixelSpacing == [0.2, 0.1]
    assert first.SeriesInstanceUID == last.SeriesInstanceUID
    assert first.SOPInstanceUID != last.SOPInstanceUID


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_overlay(tmp_path / name, COLOURS, radiograph(), RECORD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(InvalidInput, match="not overwritten"):
        write_overlay(tmp_path / "a", COLOURS, radiograph(), RECORD)


def test_what_does_not_fit_its_source_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\(7, 5, 3\) of uint8, but \(5, 7, 3\)"):
        build_overlay(COLOURS.swapaxes(0, 1), radiograph(), RECORD)
    with pytest.raises(InvalidInput, match="of float64"):
        build_overlay(COLOURS / 255, radiograph(), RECORD)
    with pytest.raises(InvalidInput, match="frames 0 to 2"):
        build_overlay(COLOURS, enhanced(), RECORD, frame=3)
