"""`medphantom anomaly --pacs` with a real PACS: results go back beside their picture, once."""

import json
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_validator import complaints
from orthanc_server import PASSWORD, USER
from pydicom import dcmread
from pydicom.dataset import Dataset
from radiographs import radiograph
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from gen.data.dicom import read_dicom
from jobs.cli import app
from jobs.pacs.connection import PACS
from jobs.pacs.search import find_instances
from jobs.pacs.settings import PACSSettings
from jobs.pacs.storage import store

HEIGHT, WIDTH = 48, 36


def chest() -> Any:
    """A torso with two lungs and a spot, as MONOCHROME1 of 12 bits has it: dark where dense."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    y, x = y / HEIGHT - 0.5, x / WIDTH - 0.5
    torso = np.hypot(y / 0.6, x / 0.48) < 1
    lungs = np.hypot(y / 0.3, (np.abs(x) - 0.2) / 0.14) < 1
    spot = np.hypot((y - 0.1) / 0.1, (x + 0.2) / 0.1) < 1
    grey = gaussian_filter(torso * np.where(lungs & ~spot, 0.3, 0.8), 0.8)
    return np.rint(3500 - 3000 * grey).astype(np.uint16)


def fetched(pacs: PACS, study: str) -> dict[str, Dataset]:
    """The objects of a study by their modality."""
    found = {}
    for row in pacs.client.search_for_instances(study_instance_uid=study):
        uids = [row[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")]
        dataset = pacs.client.retrieve_instance(*uids)
        found[str(dataset.Modality)] = dataset
    return found


def test_results_come_back_out_of_the_pacs_and_a_second_run_does_nothing(
    orthanc_url: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entry = {"archive": {"url": orthanc_url, "username": USER, "password": PASSWORD}}
    monkeypatch.setenv("MEDPHANTOM_PACS", json.dumps(entry))
    caplog.set_level(logging.DEBUG)
    pacs = PACS(PACSSettings.model_validate(entry["archive"]))
    source = radiograph(chest(), "anomaly-of-the-pacs")
    study, out = str(source.StudyInstanceUID), tmp_path / "maps"
    store(pacs, [source])
    words = ["anomaly", "--pacs", "archive", "--study", study, "--modality", "CR"]
    words += ["--model", str(tiny_folder), "--method", "single_step", "--threshold", "0.001"]
    words += ["--out", str(out)]

    done = CliRunner().invoke(app, words)  # the entry does not say that results are stored
    assert done.exit_code == 0, done.output
    [row] = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(fetched(pacs, study)) == {"CR"}
    times = {file: file.stat().st_mtime_ns for file in out.glob("pacs-*")}
    assert len(times) == 5

    done = CliRunner().invoke(app, [*words, "--store"])
    assert done.exit_code == 0, done.output
    assert {file: file.stat().st_mtime_ns for file in out.glob("pacs-*")} == times
    found = fetched(pacs, study)
    assert set(found) == {"CR", "SEG", "OT"}
    for name in ("SEG", "OT"):
        dataset = found[name]
        path = tmp_path / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        assert complaints(path) == []
        assert (dataset.Rows, dataset.Columns) == (HEIGHT, WIDTH)
        assert dataset.PatientID == source.PatientID
        assert dataset["SyntheticData"].value == "YES"
        reference = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    mask, values = found["SEG"].pixel_array.astype(bool), np.load(row["map"])
    assert mask.any()
    assert values[mask].min() > values[~mask].mean()
    # what is not marked is grey as the source is shown, so rows and columns lie where they lay
    shown = read_dicom(_bytes(source)).pixels * 255
    grey = found["OT"].pixel_array.astype(float)
    plain = values <= 0.0005
    assert plain.any()
    assert np.abs(grey[plain] - shown[plain][:, None]).max() <= 1

    with monkeypatch.context() as patch:
        patch.setattr("jobs.pacs.process.retrieve", None)  # nothing is fetched, let alone mapped
        again = CliRunner().invoke(app, [*words, "--store"])
        assert again.exit_code == 0, again.output
    assert "0 mapped" in again.stderr
    assert "1 were finished before" in " ".join(again.stderr.split())
    assert set(fetched(pacs, study)) == {"CR", "SEG", "OT"}
    assert len(find_instances(pacs, study_instance_uid=study)) == 1
    said = done.output + done.stderr + again.stderr + caplog.text
    for secret in (study, str(source.SOPInstanceUID), "Canary", "anomaly-of-the-pacs"):
        assert secret not in said
    assert "no acute finding" not in done.stderr + caplog.text


def test_what_is_stored_must_be_made(
    orthanc_url: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"archive": {"url": orthanc_url, "username": USER, "password": PASSWORD}}
    monkeypatch.setenv("MEDPHANTOM_PACS", json.dumps(entry))
    words = ["anomaly", "--pacs", "archive", "--out", str(tmp_path / "maps"), "--threshold", "1"]
    words += ["--model", str(tiny_folder)]
    for more, message in (
        (["--study", "1.2", "--store", "--format", "npy"], "format lacks dicom-seg"),
        ([], "no study is named"),
        (["--study", "Carla"], "study_instance_uid must be a UID"),
    ):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert "Carla" not in done.output


def _bytes(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    assert dcmread(BytesIO(stream.getvalue())).Rows == HEIGHT
    return stream.getvalue()
