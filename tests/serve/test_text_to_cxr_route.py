"""POST /v1/text-to-cxr."""

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from local_service import Running
from PIL import Image

from gen.data.provenance import Record

BODY = {"prompt": "a chest x-ray of a child", "num_inference_steps": 2, "seed": 7}


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)), dtype=int)


def test_the_answer_has_every_image_with_its_seed_and_record(client: httpx.Client) -> None:
    body = {**BODY, "prompt": ["a", "b"], "n": 2, "seed": [5, 6, 7, 8]}
    answer = client.post("/v1/text-to-cxr", json=body).raise_for_status().json()
    assert [image["seed"] for image in answer["images"]] == [5, 6, 7, 8]
    assert [image["record"]["prompt"] for image in answer["images"]] == ["a", "a", "b", "b"]
    assert answer["parameters"]["guidance_scale"] == 1.5
    assert answer["parameters"]["model"]
    for image in answer["images"]:
        data = base64.b64decode(image["b64"])
        assert pixels(data).shape == (16, 16)


def test_a_png_carries_the_record_that_makes_it_again(client: httpx.Client, tmp_path: Path) -> None:
    headers = {"Accept": "image/png"}
    answer = client.post("/v1/text-to-cxr", json=BODY, headers=headers).raise_for_status()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-medphantom-seed"] == "7"
    (tmp_path / "a.png").write_bytes(answer.content)
    record = Record.from_file(tmp_path / "a.png")
    assert (record.seed, record.num_inference_steps) == (7, 2)
    again = client.post("/v1/text-to-cxr", json=BODY, headers=headers)
    assert np.abs(pixels(answer.content) - pixels(again.content)).max() <= 1


def test_dicom_says_it_is_synthetic(client: httpx.Client) -> None:
    headers = {"Accept": "application/dicom"}
    answer = client.post("/v1/text-to-cxr", json={**BODY, "format": "dicom"}, headers=headers)
    dataset = pydicom.dcmread(io.BytesIO(answer.raise_for_status().content))
    assert dataset[0x0008, 0x001C].value == "YES"


def test_a_drawn_seed_is_told_and_makes_the_image_again(client: httpx.Client) -> None:
    drawn = client.post("/v1/text-to-cxr", json={**BODY, "seed": None}).json()["images"][0]
    again = client.post("/v1/text-to-cxr", json={**BODY, "seed": drawn["seed"]}).json()["images"]
    first, second = (pixels(base64.b64decode(each["b64"])) for each in (drawn, again[0]))
    assert np.abs(first - second).max() <= 1
    other = client.post("/v1/text-to-cxr", json={**BODY, "seed": None}).json()["images"][0]
    assert other["seed"] != drawn["seed"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"n": 0}, "n"),
        ({"num_inference_steps": 201}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"scheduler": "magic"}, "scheduler"),
        ({"seed": -1}, "seed"),
        ({"width": 1 << 40}, "width"),
        ({"wdith": 256}, "wdith"),
        ({"format": "gif"}, "format"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_repeated(
    client: httpx.Client, change: dict[str, Any], field: str
) -> None:
    answer = client.post("/v1/text-to-cxr", json={**BODY, **change})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["field"].split(".")[0] == field
    assert "xxxx" not in answer.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": [1, 2]}, "2 numbers for 1 images"),
        ({"n": 17, "seed": None}, "respond-async"),
        ({"model": "secret"}, "model must be one of"),
        ({"width": 33}, "multiple of"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_to_do(
    client: httpx.Client, change: dict[str, Any], words: str
) -> None:
    answer = client.post("/v1/text-to-cxr", json={**BODY, **change})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_bodies_that_are_no_json_or_too_large_are_refused(client: httpx.Client) -> None:
    assert client.post("/v1/text-to-cxr", content=b"{").status_code == 422
    assert client.post("/v1/text-to-cxr", content=b"[" * 60000).status_code in (400, 422)
    assert client.post("/v1/text-to-cxr", content=b"x" * 70000).status_code == 413

    def chunks() -> Any:  # without a length
        for _ in range(20):
            yield b"x" * 5000

    assert client.post("/v1/text-to-cxr", content=chunks()).status_code == 413


def test_one_file_cannot_hold_two_images(client: httpx.Client) -> None:
    answer = client.post("/v1/text-to-cxr", json={**BODY, "n": 2}, headers={"Accept": "image/png"})
    assert answer.status_code == 422
    assert (
        client.post("/v1/text-to-cxr", json=BODY, headers={"Accept": "text/html"}).status_code
        == 406
    )


def test_events_show_a_live_image_forming(client: httpx.Client) -> None:
    headers = {"Accept": "text/event-stream"}
    body = {**BODY, "num_inference_steps": 3}
    with client.stream("POST", "/v1/text-to-cxr", json=body, headers=headers) as answer:
        lines = list(answer.iter_lines())
    kinds = [line.split(": ")[1] for line in lines if line.startswith("event:")]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["item", "finished"]
    data = [json.loads(line.split(": ", 1)[1]) for line in lines if line.startswith("data:")]
    assert data[-2]["seed"] == 7
    assert data[-1] == {"status": "succeeded", "num_succeeded": 1, "num_failed": 0}


def test_who_goes_away_stops_the_work(client: httpx.Client, local: Running) -> None:
    body = {**BODY, "n": 4, "num_inference_steps": 200}
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", "/v1/text-to-cxr", json=body, headers=headers) as answer:
        next(answer.iter_lines())
        assert local.executor.num_live == 4
    for _ in range(200):
        if not local.executor.num_live:
            break
        time.sleep(0.05)
    assert not local.executor.num_live


def test_respond_async_makes_a_job(client: httpx.Client) -> None:
    headers = {"Prefer": "respond-async"}
    answer = client.post("/v1/text-to-cxr", json={**BODY, "n": 20, "seed": 1}, headers=headers)
    assert answer.status_code == 202
    job = client.get(answer.headers["location"]).raise_for_status().json()
    assert job["num_items"] == 20
    assert client.delete(answer.headers["location"]).json()["status"] == "cancelled"
