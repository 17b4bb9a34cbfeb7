"""Studies of a real PACS are found, analysed and given their results, each once."""

import hashlib
import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orthanc_server import PASSWORD, USER
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset

from gen.data.dicom import read_dicom
from gen.data.dicom_object import build_dicom
from gen.data.limits import Limits
from gen.data.provenance import Record
from gen.errors import InvalidInput, NotFound, PeerAway, PeerFailed, UnsafeFile
from jobs.pacs.connection import PACS
from jobs.pacs.ledger import Ledger
from jobs.pacs.process import Outcome, State, process_studies
from jobs.pacs.retrieval import read_marks, retrieve
from jobs.pacs.search import Instance, find_instances, is_result, is_stored
from jobs.pacs.settings import PACSSettings
from jobs.pacs.storage import store

SIDE = 24
LIMITS = Limits(max_side=64, max_bytes=2**16)


def uid_of(*parts: object) -> uid.UID:
    return uid.generate_uid(entropy_srcs=["test", *map(str, parts)])


def with_pixels(dataset: Dataset, pixels: Any) -> Dataset:
    """An object of 16 bits, complete enough to be stored."""
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def radiograph(patient: str, number: int = 0, side: int = SIDE) -> Dataset:
    """A computed radiograph that belongs to a study of its patient."""
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = "Canary^Carla", patient
    dataset.StudyDate, dataset.AccessionNumber = "20240229", f"A-{patient}"[:16]
    dataset.Modality, dataset.SOPClassUID = "CR", uid.ComputedRadiographyImageStorage
    dataset.StudyInstanceUID = uid_of(patient)
    dataset.SeriesInstanceUID = uid_of(patient, "series")
    dataset.SOPInstanceUID = uid_of(patient, number)
    seed = int.from_bytes(hashlib.sha256(f"{patient}{number}".encode()).digest()[:4])
    pixels = np.random.default_rng(seed).integers(0, 2**16, (side, side))
    return with_pixels(dataset, pixels)


def derived(source: Dataset, kind: str) -> Dataset:
    """A result that depends on its source alone."""
    dataset = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        setattr(dataset, keyword, getattr(source, keyword))
    dataset.Modality = kind
    dataset.SOPClassUID = {
        "OT": uid.SecondaryCaptureImageStorage,
        "SEG": uid.SegmentationStorage,
    }[kind]
    dataset.Manufacturer, dataset.ConversionType = "medphantom", "WSD"
    dataset.SeriesInstanceUID = uid_of(source.SeriesInstanceUID, kind)
    dataset.SOPInstanceUID = uid_of(source.SOPInstanceUID, kind)
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    dataset.SourceImageSequence = [reference]
    return with_pixels(dataset, 2**16 - 1 - source.pixel_array)


def analyse(data: bytes) -> Sequence[Dataset]:
    source = dcmread(BytesIO(data))
    return derived(source, "SEG"), derived(source, "OT")


def settings_of(url: str, **fields: Any) -> PACSSettings:
    return PACSSettings.model_validate(
        {"url": url, "username": USER, "password": PASSWORD, **fields}
    )


@pytest.fixture
def pacs(orthanc_url: str) -> PACS:
    return PACS(settings_of(orthanc_url))


@pytest.fixture
def patient(request: pytest.FixtureRequest) -> str:
    """A patient of this test alone."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def posts(pacs: PACS, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that anything was sent to."""
    sent: list[str] = []
    post = pacs.session.post

    def noted(url: str, **arguments: Any) -> Any:
        sent.append(url)
        return post(url, **arguments)

    monkeypatch.setattr(pacs.session, "post", noted)
    return sent


def run(pacs: PACS, patient: str, **arguments: Any) -> tuple[Counter[State], list[Outcome]]:
    outcomes: list[Outcome] = []
    options: dict[str, Any] = {"store": True, "limits": LIMITS}
    options |= {"analyse": analyse, **arguments}
    found = find_instances(pacs, patient_id=patient)
    return process_studies(pacs, found, report=outcomes.append, **options), outcomes


def test_a_picture_comes_back_bit_for_bit(pacs: PACS, patient: str) -> None:
    source = radiograph(patient)
    store(pacs, [source])
    [instance] = find_instances(pacs, study_instance_uid=source.StudyInstanceUID)
    assert instance == Instance(
        source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID, "CR", SIDE, SIDE
    )
    data = retrieve(pacs, instance, LIMITS)
    assert np.array_equal(dcmread(BytesIO(data)).pixel_array, source.pixel_array)
    assert read_dicom(data).modality == "CR"


def test_a_compressed_picture_comes_back_uncompressed(pacs: PACS, patient: str) -> None:
    source = radiograph(patient)
    pixels = source.pixel_array
    source.compress(uid.RLELossless, generate_instance_uid=False)
    store(pacs, [source])
    [instance] = find_instances(pacs, patient_id=patient)
    stored = dcmread(BytesIO(retrieve(pacs, instance, LIMITS)))
    assert stored.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert np.array_equal(stored.pixel_array, pixels)


def test_studies_are_found_by_any_condition(pacs: PACS, patient: str) -> None:
    sources = [radiograph(patient, number) for number in range(3)]
    store(pacs, sources)
    uids = {source.SOPInstanceUID for source in sources}
    study, series = sources[0].StudyInstanceUID, sources[0].SeriesInstanceUID
    conditions: list[dict[str, Any]] = [
        {"study_instance_uid": study, "series_instance_uid": series},
        {"patient_id": patient, "modality": "CR"},
        {"patient_id": patient, "study_date": "20240101-20240301"},
        {"patient_id": patient, "study_date": "20240229-"},
        {"accession_number": f"A-{patient}"},
    ]
    for condition in conditions:
        found = find_instances(pacs, **condition)
        assert {instance.sop_instance_uid for instance in found} == uids
    assert len(find_instances(pacs, patient_id=patient, limit=2)) == 2
    for condition in ({"modality": "DX"}, {"study_date": "20240301"}, {"accession_number": "no"}):
        assert find_instances(pacs, patient_id=patient, **condition) == []


def test_many_pages_are_read_to_the_end(
    pacs: PACS, patient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.pacs.search.PAGE", 2)
    store(pacs, [radiograph(patient, number) for number in range(5)])
    found = find_instances(pacs, patient_id=patient)
    assert len({instance.sop_instance_uid for instance in found}) == len(found) == 5


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({}, "no study is named"),
        ({"modality": "CR"}, "no study is named"),
        ({"study_instance_uid": "1.2/../3"}, "study_instance_uid must be a UID"),
        ({"series_instance_uid": "1.2"}, "name the study, too"),
        ({"patient_id": "*"}, "without [*]"),
        ({"patient_id": "Carla\\Carlo"}, "patient_id must be 1 to 64 characters"),
        ({"patient_id": ""}, "patient_id must be"),
        ({"accession_number": "1" * 17}, "accession_number must be 1 to 16"),
        ({"study_date": "2024-02-29"}, "study_date must be YYYYMMDD"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_conditions_that_break_a_rule_are_refused(
    pacs: PACS, conditions: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        find_instances(pacs, **conditions)
    assert "Carla" not in str(caught.value)


def test_results_are_stored_once_and_never_analysed(
    pacs: PACS, patient: str, posts: list[str]
) -> None:
    store(pacs, [radiograph(patient, number) for number in range(2)])
    posts.clear()
    counts, outcomes = run(pacs, patient)
    assert counts == {State.STORED: 2}
    assert len(posts) == 2
    for outcome in outcomes:
        for result in outcome.results:
            assert is_stored(pacs, result.StudyInstanceUID, result.SOPInstanceUID)
    posts.clear()
    again, outcomes = run(pacs, patient)
    assert again == {State.PRESENT: 2}
    assert not posts
    assert all(len(outcome.results) == 2 for outcome in outcomes)  # made again


def test_what_a_ledger_has_is_not_even_fetched(
    pacs: PACS, patient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(pacs, [radiograph(patient)])
    path = tmp_path / "ledger"
    assert run(pacs, patient, ledger=Ledger(path, "one"))[0] == {State.STORED: 1}
    assert run(pacs, patient, ledger=Ledger(path, "other"))[0] == {State.PRESENT: 1}
    assert uid_of(patient, 0) not in path.read_text()
    path.write_text(path.read_text()[:-20])  # a crash while the second line was written
    monkeypatch.setattr("jobs.pacs.process.retrieve", None)
    counts, [outcome] = run(pacs, patient, ledger=Ledger(path, "one"))
    assert counts == {State.PRESENT: 1}
    assert not outcome.results


def test_results_stay_here_if_storing_is_not_wanted(
    pacs: PACS, patient: str, posts: list[str]
) -> None:
    store(pacs, [radiograph(patient)])
    posts.clear()
    for _ in range(2):
        counts, [outcome] = run(pacs, patient, store=False)
        assert counts == {State.MADE: 1}
        assert [result.Modality for result in outcome.results] == ["SEG", "OT"]
    assert not posts


def test_a_result_that_the_search_did_not_tell_of_is_not_analysed(pacs: PACS, patient: str) -> None:
    overlay = derived(radiograph(patient), "OT")
    store(pacs, [overlay])
    assert find_instances(pacs, patient_id=patient) == []
    uids = (overlay.StudyInstanceUID, overlay.SeriesInstanceUID, overlay.SOPInstanceUID)
    hidden = Instance(*uids, "OT", None, None)
    assert is_result(read_marks(retrieve(pacs, hidden, LIMITS)))
    counts = process_studies(pacs, [hidden], analyse, store=True, report=lambda _: None)
    assert counts == {State.RESULT: 1}


def test_a_synthetic_picture_is_no_result(pacs: PACS) -> None:
    record = Record(
        model="m", weight_sha256="0" * 64, seed=1, scheduler="s", num_inference_steps=1,
        guidance_scale=1, height=SIDE, width=SIDE,
    )  # fmt: skip
    phantom = build_dicom(np.eye(SIDE), record, sop_class="SC", bits=8)
    store(pacs, [phantom])
    [instance] = find_instances(pacs, study_instance_uid=phantom.StudyInstanceUID)
    assert not is_result(read_marks(retrieve(pacs, instance, LIMITS)))


class Deadly(Ledger):
    """Kills its process when a second picture's results are stored, but not noted yet."""

    added = 0

    def add(self, instance: Instance) -> None:
        if self.added == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.added += 1
        super().add(instance)


def run_and_die(url: str, patient: str, ledger: Path) -> None:
    run(PACS(settings_of(url)), patient, ledger=Deadly(ledger, "test"))


def test_a_killed_run_goes_on_where_it_was(
    pacs: PACS, orthanc_url: str, patient: str, posts: list[str], tmp_path: Path
) -> None:
    sources = [radiograph(patient, number) for number in range(3)]
    store(pacs, sources)
    ledger = tmp_path / "ledger"
    process = multiprocessing.get_context("spawn").Process(
        target=run_and_die, args=(orthanc_url, patient, ledger)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    study = str(sources[0].StudyInstanceUID)
    results = [uid_of(each.SOPInstanceUID, kind) for each in sources for kind in ("SEG", "OT")]
    assert [is_stored(pacs, study, each) for each in results].count(True) == 4
    posts.clear()
    counts, outcomes = run(pacs, patient, ledger=Ledger(ledger, "test"))
    assert counts == {State.PRESENT: 2, State.STORED: 1}
    assert sorted(len(outcome.results) for outcome in outcomes) == [0, 2, 2]
    assert all(is_stored(pacs, study, each) for each in results)
    assert len(posts) == 1


def test_one_bad_picture_does_not_stop_the_others(pacs: PACS, patient: str) -> None:
    sources = [radiograph(patient, number) for number in range(2)]
    store(pacs, [*sources, radiograph(patient, 2, side=LIMITS.max_side + 1)])

    def moody(data: bytes) -> Sequence[Dataset]:
        if dcmread(BytesIO(data)).SOPInstanceUID == sources[0].SOPInstanceUID:
            raise RuntimeError("Canary^Carla")
        return analyse(data)

    counts, outcomes = run(pacs, patient, analyse=moody)
    assert counts == {State.STORED: 1, State.FAILED: 2}
    reasons = sorted(outcome.reason for outcome in outcomes if outcome.reason)
    assert reasons[0] == "the analysis failed with RuntimeError"
    assert "max_side is 64" in reasons[1]


def test_a_picture_beyond_the_limits_is_not_decoded(pacs: PACS, patient: str) -> None:
    store(pacs, [radiograph(patient)])
    [instance] = find_instances(pacs, patient_id=patient)
    with pytest.raises(UnsafeFile, match="max_bytes"):
        retrieve(pacs, instance, Limits(max_bytes=1000))
    silent = Instance(*uids_of(instance), "CR", None, None)
    for told in (instance, silent):
        with pytest.raises(UnsafeFile, match=f"max_side is {SIDE - 1}"):
            retrieve(pacs, told, Limits(max_side=SIDE - 1))


def uids_of(instance: Instance) -> tuple[str, str, str]:
    return instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid


def test_a_picture_that_is_gone_is_not_found(pacs: PACS, patient: str) -> None:
    gone = Instance(*map(str, (uid_of(patient), uid_of(1), uid_of(2))), "CR", None, None)
    with pytest.raises(NotFound, match="answers 404 when asked to retrieve"):
        retrieve(pacs, gone)


def test_an_object_that_is_refused_is_an_error_with_its_reason(pacs: PACS, patient: str) -> None:
    good, bad = radiograph(patient), radiograph(patient, 1)
    del bad.StudyInstanceUID
    with pytest.raises(PeerFailed, match="object 2: it cannot understand the object") as caught:
        store(pacs, [good, bad])
    assert str(bad.SOPInstanceUID) not in str(caught.value)
    store(pacs, [good])  # which was stored, and may be stored again


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "wrong"}, PeerAway, "does not accept the credentials"),
        ({"username": None, "password": None}, PeerAway, "does not accept the credentials"),
        ({"path": "/dicomweb"}, NotFound, "ends in /dicom-web"),
        ({"path": ""}, PeerFailed, "check the path of its url"),
    ],
)
def test_a_wrong_entry_says_what_to_correct(
    orthanc_url: str, change: dict[str, Any], kind: Any, words: str
) -> None:
    url = orthanc_url.removesuffix("/dicom-web") + change.pop("path", "/dicom-web")
    with pytest.raises(kind, match=words) as caught:
        find_instances(PACS(settings_of(url, **change)), patient_id="4711")
    assert "4711" not in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_logs_hold_no_patient_even_when_everything_is_logged(
    pacs: PACS, patient: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store(pacs, [radiograph(patient)])
    run(pacs, patient)
    for canary in ("Canary", patient, uid_of(patient), uid_of(patient, 0), PASSWORD):
        assert canary not in caplog.text
