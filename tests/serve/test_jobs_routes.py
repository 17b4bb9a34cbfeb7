"""Jobs over HTTP: accepted once, watched, cancelled, paged, fetched by link."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from local_service import Running
from PIL import Image

SPEC = {"prompt": "a chest x-ray of a child", "num_inference_steps": 2, "seed": 7}


def body(**change: Any) -> dict[str, Any]:
    return {"task": "text-to-cxr", "spec": {**SPEC, **change}}


def wait(client: httpx.Client, job_id: str, seconds: float = 60) -> dict[str, Any]:
    for _ in range(int(seconds / 0.05)):
        job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        if job["finished_at"]:
            return dict(job)
        time.sleep(0.05)
    raise AssertionError(f"job {job_id} is {job['status']}")


def events(client: httpx.Client, job_id: str, after: int = 0) -> list[dict[str, Any]]:
    answer = client.get(
        f"/v1/jobs/{job_id}/events?after={after}", headers={"Accept": "application/json"}
    )
    return list(answer.raise_for_status().json()["events"])


def test_a_job_runs_to_its_end_and_its_results_can_be_fetched(client: httpx.Client) -> None:
    made = client.post("/v1/jobs", json=body(n=3))
    assert made.status_code == 201
    job = wait(client, made.json()["id"])
    assert (job["status"], job["num_succeeded"], job["num_items"]) == ("succeeded", 3, 3)
    items = client.get(job["links"]["items"]).json()["items"]
    assert [item["seed"] for item in items] == [7, 8, 9]
    for item in items:
        link = item["image"]
        answer = httpx.get(str(client.base_url) + link["url"]).raise_for_status()
        assert len(answer.content) == link["bytes"]
        assert np.asarray(Image.open(io.BytesIO(answer.content))).shape == (16, 16)
        assert item["record"]["settings"]["forward_rows"] == 4
    dicom = httpx.get(str(client.base_url) + items[0]["image"]["url"] + "&format=dicom")
    assert pydicom.dcmread(io.BytesIO(dicom.content))[0x0008, 0x001C].value == "YES"
    small = httpx.get(str(client.base_url) + items[0]["image"]["url"] + "&format=preview")
    assert small.headers["content-type"] == "image/png"


def test_a_link_that_was_changed_or_is_over_opens_nothing(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json=body()).json()
    wait(client, job["id"])
    link = client.get(f"/v1/jobs/{job['id']}/items").json()["items"][0]["image"]["url"]
    assert httpx.get(f"{client.base_url}{link.replace('/0?', '/1?')}").status_code == 403
    assert httpx.get(f"{client.base_url}{link.replace('expires=', 'expires=9')}").status_code == 403
    assert httpx.get(f"{client.base_url}{link.split('?')[0]}").status_code == 422


def test_put_makes_one_job_however_often_it_is_sent(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        send = lambda _: client.put("/v1/jobs/mine-1", json=body())  # noqa: E731
        answers = list(pool.map(send, range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    other = client.put("/v1/jobs/mine-1", json=body(seed=8))
    assert other.status_code == 422
    assert "mine-1" in other.json()["error"]["message"]
    assert client.put("/v1/jobs/no/slash", json=body()).status_code in (404, 405)
    assert client.put(f"/v1/jobs/{'x' * 65}", json=body()).status_code == 422


def test_an_idempotency_key_makes_one_job(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "once"}
    ids = {client.post("/v1/jobs", json=body(), headers=headers).json()["id"] for _ in range(3)}
    assert len(ids) == 1


def test_events_can_be_streamed_resumed_and_polled(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json=body(n=2, num_inference_steps=20, previews=True)).json()
    streamed: list[tuple[int, str]] = []
    with client.stream("GET", job["links"]["events"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "id" in fields:
                streamed.append((int(fields["id"]), fields["event"]))
                json.loads(fields["data"])
    assert streamed[0] == (1, "queued")
    assert streamed[-1][1] == "finished"
    polled = [(event["seq"], event["kind"]) for event in events(client, job["id"])]
    gone = {kind for _, kind in set(streamed) - set(polled)}
    assert gone <= {"preview"}  # of finished items
    half = polled[len(polled) // 2][0]
    headers = {"Last-Event-ID": str(half)}
    with client.stream("GET", job["links"]["events"], headers=headers) as answer:
        ids = [int(line[4:]) for line in answer.iter_lines() if line.startswith("id: ")]
    assert ids == [seq for seq, _ in polled if seq > half]
    item = next(event for event in events(client, job["id"]) if event["kind"] == "item")
    assert httpx.get(f"{client.base_url}{item['data']['image']['url']}").status_code == 200


def test_cancelling_stops_queued_and_running_work(client: httpx.Client, local: Running) -> None:
    job = client.post("/v1/jobs", json=body(n=50, num_inference_steps=200)).json()
    while not any(event["kind"] == "step" for event in events(client, job["id"])):
        time.sleep(0.05)
    cancelled = client.delete(f"/v1/jobs/{job['id']}").json()
    assert cancelled["status"] == "cancelled"
    for _ in range(100):
        if not local.executor.num_live:
            break
        time.sleep(0.02)
    assert not local.executor.num_live
    after = events(client, job["id"])
    assert after[-1]["kind"] == "finished"
    assert after[-1]["data"]["status"] == "cancelled"
    states = {item["status"] for item in client.get(f"{job['links']['items']}").json()["items"]}
    assert states == {"cancelled"}
    assert client.delete(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"


def test_jobs_and_items_are_paged(client: httpx.Client) -> None:
    ids = [client.post("/v1/jobs", json=body()).json()["id"] for _ in range(5)]
    found: list[str] = []
    before = None
    while True:
        params = {"limit": 2} | ({"before": before} if before else {})
        page = client.get("/v1/jobs", params=params).raise_for_status().json()
        found += [job["id"] for job in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert found[:5] == ids[::-1]
    assert len(set(found)) == len(found)
    job = client.post("/v1/jobs", json=body(n=5)).json()
    page = client.get(job["links"]["items"], params={"limit": 3}).json()
    assert page["next"] == 3
    rest = client.get(job["links"]["items"], params={"start": 3}).json()
    assert [item["index"] for item in rest["items"]] == [3, 4]
    assert rest["next"] is None


def test_an_item_that_cannot_be_made_is_set_aside_with_its_reason(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json=body(width=33)).json()
    ended = wait(client, job["id"])
    assert (ended["status"], ended["num_failed"]) == ("failed", 1)
    item = client.get(job["links"]["items"]).json()["items"][0]
    assert "multiple of" in item["error"]
    assert item["image"] is None


@pytest.mark.parametrize("path", ["/v1/jobs/none", "/v1/jobs/none/items", "/v1/jobs/none/events"])
def test_an_unknown_job_is_not_found(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found"
    assert client.post("/v1/jobs", json={"task": "magic", "spec": SPEC}).status_code == 422


def test_job_pixels_do_not_depend_on_company(client: httpx.Client) -> None:
    def image(job: dict[str, Any], index: int) -> bytes:
        wait(client, job["id"])
        item = client.get(job["links"]["items"]).json()["items"][index]
        return httpx.get(f"{client.base_url}{item['image']['url']}").content

    alone = client.post("/v1/jobs", json=body(seed=9)).json()
    first = image(alone, 0)
    crowd = client.post("/v1/jobs", json=body(seed=5, n=7)).json()
    assert image(crowd, 4) == first
