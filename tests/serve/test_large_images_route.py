"""Large images over HTTP: accepted as jobs, followed by windows, shown tile by tile."""

import base64
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from local_service import Running, running
from PIL import Image

from gen.data.stored_tiles import tile_levels
from jobs.sink import UPLOADS

REFERENCE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def b64(pixels: Any = REFERENCE) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


# words would draw a field in many steps
SPEC = {"variation": [b64(REFERENCE[:40])], "width": 600, "height": 300, "seed": 7}
SPEC |= {"num_inference_steps": 1, "guidance_scale": 1}


@pytest.fixture(scope="module")
def tissue(
    tiny_model: str, tiny_large_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service of both tasks."""
    models = (tiny_model, str(tiny_large_model))
    with running(tiny_model, tmp_path_factory.mktemp("tissue"), models=models) as service:
        yield service


@pytest.fixture
def http(tissue: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tissue.url, timeout=60) as client:
        yield client


def wait(client: httpx.Client, job_id: str) -> dict[str, Any]:
    for _ in range(1200):
        job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        if job["finished_at"]:
            return dict(job)
        time.sleep(0.05)
    raise AssertionError(f"job {job_id} is {job['status']}")


def finished(client: httpx.Client, **fields: Any) -> tuple[dict[str, Any], str]:
    """A job that succeeded, and its item's link."""
    answer = client.post("/v1/large-images", json={**SPEC, **fields})
    assert answer.status_code == 202, answer.text
    job = wait(client, answer.json()["id"])
    item = client.get(job["links"]["items"]).json()["items"][0]
    assert job["status"] == "succeeded", item["error"]
    return job, item["image"]["url"]


def beside(link: str, path: str) -> str:
    return link.replace("?", f"{path}?")


def test_a_large_image_is_always_a_job_and_its_result_a_slide(
    http: httpx.Client, tiny_large_model: Path
) -> None:
    answer = http.post("/v1/large-images", json=SPEC)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job = wait(http, answer.json()["id"])
    assert job["task"] == "large-images"
    assert job["spec"]["model"] == str(tiny_large_model)
    assert job["steps_done"] == job["num_steps"] > 25  # windows
    item = http.get(job["links"]["items"]).json()["items"][0]
    assert (item["seed"], item["image"]["media_type"]) == (7, "image/tiff")
    file = http.get(item["image"]["url"])
    assert file.headers["content-type"] == "image/tiff"
    assert file.headers["content-disposition"].endswith('.ome.tif"')
    assert tile_levels(io.BytesIO(file.content))[0].width == 600


def test_it_can_be_asked_for_among_jobs_too_and_once_by_a_key(http: httpx.Client) -> None:
    body = {"task": "large-images", "spec": SPEC}
    assert http.post("/v1/jobs", json=body).status_code == 201
    answers = [http.put("/v1/jobs/mine", json=body).status_code for _ in range(2)]
    assert answers == [201, 200]
    headers = {"Idempotency-Key": "once"}
    ids = {http.post("/v1/large-images", json=SPEC, headers=headers).json()["id"] for _ in "ab"}
    assert len(ids) == 1


def test_tiles_are_those_of_the_file_under_its_link(http: httpx.Client) -> None:
    _, link = finished(http)
    answer = http.get(beside(link, "/tiles"))
    assert "immutable" in answer.headers["cache-control"]
    slide = answer.json()
    assert (slide["width"], slide["height"], slide["tile"]) == (600, 300, 256)
    assert slide["microns_per_pixel"] == 0.5
    assert slide["levels"][0] == {"width": 600, "height": 300, "columns": 3, "rows": 2}
    assert slide["levels"][1]["width"] == 300
    file = http.get(link).content
    for level, each in enumerate(slide["levels"]):
        for column in range(each["columns"]):
            tile = http.get(beside(link, f"/tiles/{level}/{column}/0"))
            assert tile.headers["content-type"] == "image/jpeg"
            assert "immutable" in tile.headers["cache-control"]
            assert tile.content in file
            with Image.open(io.BytesIO(tile.content)) as picture:
                assert picture.size == (256, 256)


def test_tiles_need_the_link_and_must_exist(http: httpx.Client) -> None:
    _, link = finished(http)
    assert http.get(beside(link, "/tiles").replace("/0/", "/1/")).status_code == 403
    forged = beside(link, "/tiles/0/0/0").replace("signature=", "signature=x")
    assert http.get(forged).status_code == 403
    assert http.get(link.split("?")[0] + "/tiles").status_code == 422
    for place, word in (("0/3/0", "column is 3"), ("9/0/0", "level is 9"), ("0/0/2", "row is 2")):
        missing = http.get(beside(link, f"/tiles/{place}"))
        assert missing.status_code == 422
        assert word in missing.json()["error"]["message"]


def test_a_preview_is_small_and_coloured_and_other_formats_are_refused(http: httpx.Client) -> None:
    _, link = finished(http)
    preview = http.get(f"{link}&format=preview")
    with Image.open(io.BytesIO(preview.content)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (512, 256))
    for kind in ("png", "dicom"):
        answer = http.get(f"{link}&format={kind}")
        assert answer.status_code == 422
        assert "format=preview" in answer.json()["error"]["message"]


def test_what_is_no_slide_has_no_tiles(http: httpx.Client) -> None:
    spec = {"prompt": "a chest", "num_inference_steps": 1}
    made = http.post("/v1/jobs", json={"task": "text-to-cxr", "spec": spec}).json()
    wait(http, made["id"])
    item = http.get(made["links"]["items"]).json()["items"][0]
    answer = http.get(beside(item["image"]["url"], "/tiles"))
    assert answer.status_code == 422
    assert "no slide" in answer.json()["error"]["message"]


def test_a_picture_is_answered_and_stored_as_its_hash(
    tissue: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    picture = b64(wide)  # far more than other requests may have
    assert len(picture) > 4 * 65536
    with caplog.at_level(logging.DEBUG):
        job, _ = finished(http, like=picture, variation=None)
    size = job["spec"]["like"]["bytes"]
    assert size == len(base64.b64decode(picture))
    kept = tissue.service.sink.get_upload(job["spec"]["like"]["sha256"])
    assert kept == base64.b64decode(picture)
    assert picture[:60] not in caplog.text
    database = Path(tissue.service.args.store.removeprefix("sqlite:///"))
    stored = b"".join(path.read_bytes() for path in database.parent.glob("jobs.db*"))
    assert picture[1000:1060].encode() not in stored
    assert len(http.get(job["links"]["self"]).content) < 4000
    assert (Path(tissue.service.args.results) / UPLOADS).is_dir()


def test_the_same_picture_is_the_same_job_and_another_one_is_not(http: httpx.Client) -> None:
    spec = {**SPEC, "variation": [b64(), b64(REFERENCE[:50])]}
    send = lambda s: http.put("/v1/jobs/varied", json={"task": "large-images", "spec": s})  # noqa: E731
    assert [send(spec).status_code, send(spec).status_code] == [201, 200]
    assert send({**spec, "variation": [b64()]}).status_code == 422
    assert wait(http, "varied")["status"] == "succeeded"


def test_words_make_one_too(http: httpx.Client) -> None:
    job, _ = finished(http, variation=None, text="stroma", width=256, height=256)
    assert job["spec"]["text"] == "stroma"


def test_previews_come_in_colour_while_it_forms(http: httpx.Client) -> None:
    spec = {**SPEC, "width": 1024, "height": 1024, "num_inference_steps": 12, "previews": True}
    made = http.post("/v1/large-images", json=spec).json()
    with http.stream("GET", made["links"]["events"]) as answer:
        shown = next(line for line in answer.iter_lines() if "data:image/png;base64," in line)
    http.delete(made["links"]["self"])
    data = shown.split("data:image/png;base64,")[1].split('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.mode, picture.size) == ("RGB", (256, 256))


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"text": "stroma"}, None, "exactly one"),
        ({"like": "aGVsbG8=", "variation": None}, "like", "no PNG, JPEG or TIFF"),
        ({"width": 20000}, "width", "16384"),
        ({"width": 16384, "height": 16384}, None, "height may be 8192"),
        ({"method": "magic"}, "method", "shift"),
        ({"model": "TINY"}, None, "model must be one of"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_repeated(
    http: httpx.Client, tiny_model: str, fields: dict[str, Any], field: str | None, words: str
) -> None:
    fields = {key: tiny_model if value == "TINY" else value for key, value in fields.items()}
    answer = http.post("/v1/large-images", json={**SPEC, **fields})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["field"] == field
    assert "aGVsbG8" not in answer.text
    again = http.post("/v1/jobs", json={"task": "large-images", "spec": {**SPEC, **fields}})
    assert again.json()["error"]["message"].endswith(answer.json()["error"]["message"])


def test_an_unknown_task_is_refused_without_being_repeated(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json={"task": "canary", "spec": SPEC})
    assert answer.status_code == 422
    assert "'large-images'" in answer.json()["error"]["message"]
    assert "canary" not in answer.text


def test_where_no_model_fits_the_remedy_is_named(client: httpx.Client) -> None:
    answer = client.post("/v1/large-images", json=SPEC)
    assert answer.status_code == 422
    assert "embedding-to-image" in answer.json()["error"]["message"]


def test_only_these_routes_take_large_bodies_and_only_of_known_callers(
    tiny_model: str, tiny_large_model: Path, tmp_path: Path
) -> None:
    caps = {"max_body_bytes": 2000, "max_image_body_bytes": 9000}
    models = (tiny_model, str(tiny_large_model))
    body = {**SPEC, "variation": None, "like": b64(REFERENCE[:20, :40])}
    assert 2000 < len(body["like"]) < 8000
    job = {"task": "large-images", "spec": body}
    with running(tiny_model, tmp_path, models=models, require_keys=True, works=False, **caps) as it:
        known = httpx.Client(base_url=it.url, headers=it.headers)
        stranger = httpx.Client(base_url=it.url)
        with known, stranger:
            assert known.post("/v1/large-images", json=body).status_code == 202
            assert known.post("/v1/jobs", json=job).status_code == 201
            assert known.put("/v1/jobs/a", json=job).status_code == 201
            assert known.post("/v1/text-to-cxr", json=body).status_code == 413
            assert known.post("/v1/large-images", content=b"x" * 9001).status_code == 413
            endless = (b"x" * 1000 for _ in range(20))
            assert known.post("/v1/large-images", content=endless).status_code == 413
            assert stranger.post("/v1/large-images", json=body).status_code == 401
            unsized = (b"x" * 1000 for _ in range(20))
            assert stranger.put("/v1/jobs/a", content=unsized).status_code == 401
            assert stranger.post("/v1/text-to-cxr", json=body).status_code == 413
