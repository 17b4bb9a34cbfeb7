"""Anomaly maps over HTTP: one at once, several as a job, and their files by signed links."""

import base64
import io
import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from local_service import Running, running
from PIL import Image

from gen.anomaly.calibration import AnomalyCalibration, OperatingPoints
from gen.data.bundle import unpack
from gen.store.card import write_card

POINTS = OperatingPoints(
    num_images=50, suspicious=0.01, pictures={"0.02": 0.5, "0.5": 0.0}, pixels={"0.02": 0.4}
)


def b64(seed: int = 0) -> str:
    coarse = np.random.default_rng(seed).integers(60, 256, (5, 5), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


SPEC: dict[str, Any] = {"images": [b64()], "method": "single_step", "threshold": 0, "seed": 7}


@pytest.fixture(scope="module")
def calibrated(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with thresholds of one method."""
    folder = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(tiny_model, folder)
    calibration = AnomalyCalibration(prompt="healthy", data="made up", methods={"thor": POINTS,
                                     "single_step": POINTS})  # fmt: skip
    write_card(
        folder, id="tiny", task="text-to-image", modality="DX", image_size=16,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, limits=("random",),
        calibration={"anomaly": calibration.model_dump(mode="json")},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def mapping(
    tiny_model: str, calibrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service of a model that is calibrated and one that is not."""
    models = (str(calibrated), tiny_model)
    with running(tiny_model, tmp_path_factory.mktemp("mapping"), models=models) as service:
        yield service


@pytest.fixture
def http(mapping: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mapping.url, timeout=120) as client:
        yield client


def wait(client: httpx.Client, job_id: str) -> dict[str, Any]:
    for _ in range(2400):
        job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        if job["finished_at"]:
            return dict(job)
        time.sleep(0.05)
    raise AssertionError(f"job {job_id} is {job['status']}")


def finished(client: httpx.Client, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A job that succeeded, and its items."""
    spec = {**SPEC, "images": [b64(), b64(1)], **fields}
    answer = client.post("/v1/anomaly-maps", json=spec)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job = wait(client, answer.json()["id"])
    items = client.get(job["links"]["items"]).json()["items"]
    assert job["status"] == "succeeded", items[0]["error"]
    return job, items


def test_one_picture_is_answered_at_once_with_every_file(http: httpx.Client) -> None:
    answer = http.post("/v1/anomaly-maps", json=SPEC).raise_for_status().json()
    (found,) = answer["images"]
    assert (found["seed"], found["record"]["score"] > 0) == (7, True)
    files = {name: base64.b64decode(each["b64"]) for name, each in found["files"].items()}
    assert found["files"]["healthy.png"]["media_type"] == "image/png"
    assert np.load(io.BytesIO(files["map.npy"])).shape == (40, 50)
    assert json.loads(files["record.json"]) == found["record"]
    # what was sent is echoed as its hash
    assert answer["parameters"]["images"] == [
        {"sha256": found["record"]["source_sha256"], "bytes": len(base64.b64decode(b64()))}
    ]


def test_accept_chooses_an_archive_or_events(http: httpx.Client) -> None:
    headers = {"Accept": "application/zip"}
    answer = http.post("/v1/anomaly-maps", json=SPEC, headers=headers).raise_for_status()
    assert answer.headers["content-disposition"].endswith('.zip"')
    assert "overlay.png" in unpack(answer.content)
    headers = {"Accept": "text/event-stream"}
    events = http.post("/v1/anomaly-maps", json=SPEC, headers=headers).raise_for_status().text
    assert "event: step" in events
    assert '"map.npy"' in events
    assert http.post("/v1/anomaly-maps", json=SPEC, headers={"Accept": "a/b"}).status_code == 406


def test_several_pictures_are_a_job_whose_files_have_links(http: httpx.Client) -> None:
    job, items = finished(http)
    assert (job["task"], job["num_items"], [each["seed"] for each in items]) == (
        "anomaly-maps", 2, [7, 8])  # fmt: skip
    link, record = items[1]["image"]["url"], items[1]["record"]
    assert items[1]["image"]["media_type"] == "application/zip"
    files = unpack(http.get(link).raise_for_status().content)
    assert list(files) == record["files"]
    for name, data in files.items():
        answer = http.get(link.replace("?", f"/files/{name}?")).raise_for_status()
        assert answer.content == data
        assert answer.headers["content-disposition"].endswith(f'-1-{name}"')
    preview = http.get(f"{link}&format=preview").raise_for_status().content
    assert Image.open(io.BytesIO(preview)).size == (50, 40)
    for kind in ("png", "dicom"):
        refused = http.get(f"{link}&format={kind}")
        assert refused.status_code == 422
        assert "/files/NAME" in refused.json()["error"]["message"]


def test_files_need_the_link_and_must_exist(http: httpx.Client) -> None:
    _, items = finished(http)
    link = items[0]["image"]["url"]
    missing = http.get(link.replace("?", "/files/other.png?"))
    assert missing.status_code == 404
    assert "map.npy" in missing.json()["error"]["message"]
    forged = link.replace("?", "/files/map.npy?").replace("signature=", "signature=x")
    assert http.get(forged).status_code == 403
    assert http.get(link.replace("?", "/files/..%2Fjobs.db?")).status_code in (404, 422)


def test_it_can_be_asked_for_among_jobs_too_and_once_by_a_key(http: httpx.Client) -> None:
    body = {"task": "anomaly-maps", "spec": SPEC}
    assert [http.put("/v1/jobs/mapped", json=body).status_code for _ in range(2)] == [201, 200]
    assert wait(http, "mapped")["status"] == "succeeded"
    headers = {"Idempotency-Key": "once"}
    answers = [http.post("/v1/anomaly-maps", json=SPEC, headers=headers) for _ in "ab"]
    assert [each.status_code for each in answers] == [202, 202]
    assert len({each.json()["id"] for each in answers}) == 1
    later = http.post("/v1/anomaly-maps", json=SPEC, headers={"Prefer": "respond-async"})
    assert (later.status_code, later.headers["preference-applied"]) == (202, "respond-async")


def test_a_job_can_be_cancelled(http: httpx.Client) -> None:
    spec = {**SPEC, "method": "thor", "images": [b64(i) for i in range(8)]}
    job = http.post("/v1/anomaly-maps", json=spec).json()
    http.delete(job["links"]["self"]).raise_for_status()
    assert wait(http, job["id"])["status"] == "cancelled"


def test_a_rate_of_false_alarms_becomes_the_threshold_of_the_card(http: httpx.Client) -> None:
    spec = {**SPEC, "threshold": None, "threshold_fpr": 0.5}
    found = http.post("/v1/anomaly-maps", json=spec).raise_for_status().json()["images"][0]
    assert found["record"]["threshold"] == 0.0
    assert found["record"]["settings"]["threshold_fpr"] == 0.5
    assert found["record"]["prompt"] == "healthy"


def test_the_list_of_models_says_what_is_calibrated(http: httpx.Client) -> None:
    calibrated, plain = http.get("/v1/models").raise_for_status().json()["data"]
    assert calibrated["anomaly_rates"] == {"thor": [0.02, 0.5], "single_step": [0.02, 0.5]}
    assert plain["anomaly_rates"] is None


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"images": ["aGVsbG8="]}, "images.0", "no PNG, JPEG or DICOM"),
        ({"images": []}, "images", "at least 1 item"),
        ({"method": "magic"}, "method", "autopaint"),
        ({"threshold": None, "method": "autopaint"}, None, "single_step; find them with"),
        ({"threshold": None, "threshold_fpr": 0.001}, None, "0.02 to 0.5"),
        ({"threshold": None, "model": "TINY"}, None, "is not calibrated on healthy pictures"),
        ({"threshold_fpr": 0.1}, None, "give one"),
        ({"model": "other"}, None, "model must be one of"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_repeated(
    http: httpx.Client, tiny_model: str, fields: dict[str, Any], field: str | None, words: str
) -> None:
    fields = {key: tiny_model if value == "TINY" else value for key, value in fields.items()}
    answer = http.post("/v1/anomaly-maps", json={**SPEC, **fields})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["field"] == field
    assert "aGVsbG8" not in answer.text
    again = http.post("/v1/jobs", json={"task": "anomaly-maps", "spec": {**SPEC, **fields}})
    assert again.json()["error"]["message"].endswith(answer.json()["error"]["message"])


def test_a_picture_with_too_many_pixels_is_refused_by_its_header(http: httpx.Client) -> None:
    stream = io.BytesIO()
    Image.new("L", (8000, 8000)).save(stream, "PNG")
    wide = base64.b64encode(stream.getvalue()).decode()
    answer = http.post("/v1/anomaly-maps", json={**SPEC, "images": [wide]})
    assert answer.status_code == 422
    assert "max_pixels" in answer.json()["error"]["message"]


def test_no_picture_reaches_the_logs_or_the_database(
    mapping: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    picture = b64(99)
    with caplog.at_level(logging.DEBUG):
        finished(http, images=[picture, b64(98)], prompt="canaryword")
        http.post("/v1/anomaly-maps", json={**SPEC, "images": [picture]}).raise_for_status()
    assert picture[40:100] not in caplog.text
    assert "canaryword" not in caplog.text
    database = Path(mapping.service.args.store.removeprefix("sqlite:///"))
    stored = b"".join(path.read_bytes() for path in database.parent.glob("jobs.db*"))
    assert picture[100:160].encode() not in stored


def test_a_key_that_may_generate_may_send_pictures_and_strangers_may_not(
    tiny_model: str, tmp_path: Path
) -> None:
    caps = {"max_body_bytes": 1100, "max_image_body_bytes": 20000}
    assert len(b64()) > 1100
    with running(tiny_model, tmp_path, require_keys=True, works=False, **caps) as it:
        with httpx.Client(base_url=it.url, headers=it.headers, timeout=120) as known:
            assert known.post("/v1/anomaly-maps", json=SPEC).status_code == 200
            assert known.post("/v1/anomaly-maps", content=b"x" * 20001).status_code == 413
        with httpx.Client(base_url=it.url) as stranger:
            assert stranger.post("/v1/anomaly-maps", json=SPEC).status_code == 401
