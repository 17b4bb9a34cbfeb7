"""The task of anomaly maps: what may be asked, what it costs, and what a picture becomes."""

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from gen.anomaly.calibration import METHODS
from gen.data.bundle import unpack
from gen.data.provenance import Record
from gen.engine import Engine, run
from gen.errors import InvalidInput
from jobs.counted import counted
from jobs.model_pool import ModelPool
from jobs.pacs.search import Instance
from jobs.tasks import TASKS
from jobs.tasks.anomaly_map import CALLS, PICTURE, ROWS, AnomalyMapSpec, grey_ramp
from jobs.tasks.study import Study
from jobs.tasks.uploads import Radiograph

TASK = TASKS["anomaly-maps"]
DEVICE = torch.device("cpu")


def chest(height: int = 40, width: int = 50, seed: int = 0) -> Any:
    """Smooth and bright in the middle, as what lies in a body is."""
    coarse = np.random.default_rng(seed).integers(60, 256, (5, 5), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def b64(pixels: Any = None, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(chest() if pixels is None else pixels).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def dicom(pixels: Any, **elements: Any) -> str:
    """A radiograph of a patient whom nobody may hear of."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Canary^Patient", "CANARY-7", "CR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = (pixels.astype("<u2") << 4).tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return base64.b64encode(stream.getvalue()).decode()


def spec(*images: str, **fields: Any) -> AnomalyMapSpec:
    body = {"images": images or [b64()], "method": "single_step", **fields}
    checked: AnomalyMapSpec = TASK.check({"threshold": 0.0, **body})
    return checked


@pytest.fixture(scope="module")
def pipeline(tiny_model: str) -> Any:
    return TASK.load(tiny_model, DEVICE, torch.float32)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": []}, "at least 1 item"),
        ({"images": [b64()] * 17}, "at most 16 items"),
        ({"images": ["aGVsbG8="]}, "no PNG, JPEG or DICOM"),
        ({"images": [b64(kind="TIFF")]}, "no PNG, JPEG or DICOM"),
        ({"images": ["http://example.org/a.png"]}, "no base64"),
        ({"images": [b64(chest(9000, 4))]}, "max_side is 8192"),
        ({"images": [dicom(chest(), NumberOfFrames=3)]}, "max_frames is 1"),
        ({"images": [dicom(chest(), Rows=5000, Columns=5000)]}, "max_pixels is"),
        ({"method": "magic"}, "autopaint"),
        ({"threshold": 0.1, "threshold_fpr": 0.1}, "give one"),
        ({"threshold": -0.1}, "greater than or equal to 0"),
        ({"threshold": None, "threshold_fpr": 1}, "less than 1"),
        ({"prompt": ""}, "at least 1 character"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"url": "http://x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_rule_is_named(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        TASK.check({"images": [b64()], "threshold": 0.0, **fields})


STUDY = {"pacs": "archive", "study_instance_uid": "1.2.3"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "images or study must be given"),
        ({"images": [b64()], "study": STUDY}, "not both"),
        ({"study": {**STUDY, "pacs": ""}}, "at least 1 character"),
        ({"study": {**STUDY, "study_instance_uid": "1.2.3\n"}}, "should match pattern"),
        ({"study": {**STUDY, "study_instance_uid": "1..2"}}, "should match pattern"),
        ({"study": {**STUDY, "study_instance_uid": "1." * 32 + "1"}}, "at most 64"),
        ({"study": {**STUDY, "patient_id": "x"}}, "Extra inputs"),
    ],
)
def test_pictures_come_from_one_place_which_is_named_by_the_rules(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        TASK.check({"threshold": 0.0, **fields})


def test_the_seed_of_a_study_does_not_depend_on_its_job() -> None:
    found = [Instance("1.2.3", "1.2.3.1", f"1.2.3.1.{number}", "CR", 8, 8) for number in range(2)]
    for seed in (None, 5):
        asked = TASK.check({"study": STUDY, "threshold": 0.0, "seed": seed})
        assert TASK.study(asked) == Study.model_validate(STUDY)
        items = TASK.study_items(asked, found)
        assert [(each["image"], each["seed"]) for each in items] == [(0, seed or 0)] * 2
        assert [Instance(**each["instance"]) for each in items] == found
        light, files = TASK.detach(asked)
        assert files == {}
        assert TASK.check(TASK.attach(light, {}.__getitem__)) == asked
    assert TASK.work(asked) == TASK.work(TASK.check({"images": [b64()]}))
    assert TASK.study(spec()) is None
    with pytest.raises(NotImplementedError):
        TASKS["large-images"].study_items(None, [])


def test_each_picture_is_an_item_with_a_seed_of_its_own() -> None:
    two = spec(b64(), b64(), seed=2**63 - 1)
    seeds = [{"image": 0, "seed": 2**63 - 1}, {"image": 1, "seed": 0}]
    assert TASK.items(two, "r") == seeds
    drawn = TASK.items(spec(b64(), b64()), "r")
    assert drawn == TASK.items(spec(b64(), b64()), "r") != TASK.items(spec(b64(), b64()), "s")
    assert drawn[0]["seed"] != drawn[1]["seed"]


def test_a_spec_survives_its_journey_and_the_store_gets_no_picture() -> None:
    full = spec(b64(), dicom(chest()), prompt="healthy")
    assert TASK.check(full.model_dump(mode="json")) == full
    light, files = TASK.detach(full)
    assert "iVBOR" not in str(light)
    assert "CANARY" not in str(light)
    assert len(files) == 2
    assert TASK.check(TASK.attach(light, files.__getitem__)) == full


def made(pipeline: Any, asked: AnomalyMapSpec, index: int = 0, **settings: Any) -> Any:
    item = TASK.items(asked, "r")[index]
    result = run(TASK.process(pipeline, asked, item, lambda *_: None), TASK.networks(pipeline))
    return TASK.encode(pipeline, asked, item, result, settings)


def image(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_picture_becomes_layers_numbers_and_a_record(pipeline: Any, tmp_path: Path) -> None:
    asked = spec(b64(chest(40, 50)), seed=4, model="m")
    file = made(pipeline, asked, forward_rows=4)
    assert file.media_type == "application/zip"
    files = unpack(file.data)
    said = json.loads(files["record.json"])
    assert said == json.loads(json.dumps(file.record))
    assert said["files"] == list(files)
    assert set(files) == {"overlay.png", "healthy.png", "picture.png", "heat.png", "map.npy",
                          "record.json"}  # fmt: skip
    found = np.load(io.BytesIO(files["map.npy"]), allow_pickle=False)
    assert (found.shape, found.dtype) == ((40, 50), np.float32)
    assert np.array_equal(image(files["picture.png"]), chest(40, 50))
    assert image(files["overlay.png"]).shape == (40, 50, 3)
    assert image(files["heat.png"]).shape == (40, 50, 4)
    (tmp_path / "healthy.png").write_bytes(files["healthy.png"])
    record = Record.from_file(tmp_path / "healthy.png")
    assert record.describe().startswith("Partly synthetic")
    assert (record.seed, record.task, record.settings["forward_rows"]) == (4, "anomaly_map", 4)
    assert record.source_sha256 == asked.images[0].digest
    assert (said["method"], said["threshold"], said["score"] > 0) == ("single_step", 0.0, True)
    assert said["weight_sha256"] == pipeline.weight_sha256
    for name in ("picture.png", "overlay.png", "heat.png"):  # nobody says that these are of nobody
        assert "Synthetic" not in Image.open(io.BytesIO(files[name])).info
    assert said["boxes"]
    for box in said["boxes"]:
        assert 0 <= box["x"] < box["x"] + box["w"] <= 50
        assert 0 <= box["y"] < box["y"] + box["h"] <= 40
        assert box["score"] > 0


def test_doing_it_twice_gives_the_same_file_and_another_seed_another(pipeline: Any) -> None:
    files = [made(pipeline, spec(seed=seed, model="m")).data for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]
    dates = {each.date_time for each in zipfile.ZipFile(io.BytesIO(files[0])).infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}


def test_sixteen_bits_stay_so(pipeline: Any) -> None:
    pixels = chest().astype(np.uint16) * 257
    files = unpack(made(pipeline, spec(b64(pixels), model="m")).data)
    assert image(files["healthy.png"]).dtype == np.uint16


def test_dicom_gets_a_segmentation_and_a_capture_in_its_study(pipeline: Any) -> None:
    file = made(pipeline, spec(dicom(chest()), model="m"))
    files = unpack(file.data)
    for name, modality in (("mask.dcm", "SEG"), ("overlay.dcm", "OT")):
        derived = pydicom.dcmread(io.BytesIO(files[name]))
        assert (derived.Modality, derived.StudyInstanceUID) == (modality, "1.2.3")
        assert (derived.Rows, derived.Columns) == (40, 50)
        assert derived.PatientID == "CANARY-7"
    assert "anary" not in json.dumps(file.record).lower()
    stripped = made(pipeline, spec(dicom(chest(), StudyInstanceUID=""), model="m"))
    assert not {"mask.dcm", "overlay.dcm"} & set(unpack(stripped.data))


@pytest.mark.parametrize("method", ["single_step", "autopaint", "patchwise"])
def test_calls_are_counted_to_their_number_or_less(pipeline: Any, method: Any) -> None:
    told: list[tuple[int, int]] = []
    shapes = set()

    def on_step(done: int, total: int, latents: Any) -> None:
        told.append((done, total))
        shapes.add(tuple(latents.shape))

    asked = spec(method=method)
    networks, rows = counted(TASK.networks(pipeline))
    run(TASK.process(pipeline, asked, {"image": 0, "seed": 1}, on_step), networks)
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert len(told) <= CALLS[asked.method] == told[-1][1]
    if method != "autopaint":  # which ends early where nothing more is suspicious
        assert len(told) >= 0.7 * CALLS[asked.method]  # by the spacing of a scheduler's timesteps
    assert rows["unet"] <= ROWS[asked.method]
    (shape,) = shapes
    pixels = run(TASK.preview(pipeline, torch.zeros(shape)), networks)
    assert pixels.shape[2:] == (16, 16)


def test_work_grows_with_pictures_and_with_the_method() -> None:
    assert set(CALLS) == set(ROWS) == set(METHODS)
    assert TASK.work(spec(b64(), b64())) == 2 * TASK.work(spec())
    assert TASK.work(spec(method="thor")) > 4 * TASK.work(spec(method="autopaint"))


def test_a_threshold_or_a_calibrated_model_is_needed(pipeline: Any, tiny_model: str) -> None:
    rate = spec(threshold=None, threshold_fpr=0.05, model=tiny_model)
    with pytest.raises(InvalidInput, match="is not calibrated on healthy pictures; give a thresho"):
        TASK.check_model(rate)
    with pytest.raises(InvalidInput, match="is not calibrated"):
        TASK.process(pipeline, rate, {"image": 0, "seed": 1}, lambda *_: None)
    TASK.check_model(spec(model=tiny_model))


def test_the_warm_up_is_a_valid_spec_of_little_work(pipeline: Any) -> None:
    asked = TASK.check(TASK.warm_up())
    assert TASK.work(asked) < 2
    Radiograph(base64.b64decode(grey_ramp()), PICTURE).check()
    assert json.loads(unpack(made(pipeline, asked.model_copy(update={"model": "m"})).data)[
        "record.json"])["boxes"] == []  # fmt: skip


def test_maps_share_forwards_with_images_of_the_same_model(tiny_model: str) -> None:
    drawing = TASKS["text-to-cxr"]
    pool = ModelPool((tiny_model,), DEVICE, torch.float32)
    first = pool.acquire(drawing, tiny_model)
    assert "features" not in first.networks
    both = pool.acquire(TASK, tiny_model)
    assert both is first
    assert {"features", "encoder", "unet"} <= set(both.networks)
    forwards: list[tuple[str, int]] = []
    engine = Engine({}, 16, False, on_forward=lambda name, rows, _: forwards.append((name, rows)))
    sentence = drawing.check({"prompt": "a", "num_inference_steps": 2})
    item = drawing.items(sentence, "r")[0]
    tickets = [
        engine.submit(
            drawing.process(first.pipeline, sentence, item, lambda *_: None),
            components=first.networks,
        ),
        engine.submit(
            TASK.process(both.pipeline, spec(), {"image": 0, "seed": 1}, lambda *_: None),
            components=both.networks,
        ),
    ]
    engine.drain()
    for ticket in tickets:
        ticket.result()
    assert ("unet", 10) in forwards  # two of the sentence, eight of the map
