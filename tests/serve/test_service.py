"""The real service: Ray, its processes, and what becomes of work when they die."""

import base64
import io
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from service_process import ServiceProcess

pytestmark = pytest.mark.ray

BODY = {"prompt": "a chest x-ray of a child", "num_inference_steps": 4, "seed": 7}
PNG = {"Accept": "image/png"}
SAMPLER, WORKER, CONTROLLER = "ServeReplica:medphantom:Sampler", "JobWorker", "ServeController"


@pytest.fixture(scope="module")
def service(
    tiny_model: str, tiny_large_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """One for all tests here: whatever they kill must come back."""
    models = [tiny_model, str(tiny_large_model)]
    folder = tmp_path_factory.mktemp("served")
    with ServiceProcess(folder, tiny_model, models=models) as process:
        yield process


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[httpx.Client]:
    """Of the real service."""
    service.wait_ready()
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


def image(client: httpx.Client, **change: Any) -> bytes:
    answer = client.post("/v1/text-to-cxr", json={**BODY, **change}, headers=PNG)
    return answer.raise_for_status().content


def job_images(client: httpx.Client, job_id: str, **change: Any) -> dict[int, str]:
    """Content hashes of a job's images, by index, when it has ended."""
    body = {"task": "text-to-cxr", "spec": {**BODY, **change}}
    client.put(f"/v1/jobs/{job_id}", json=body).raise_for_status()
    return finished_images(client, job_id)


def finished_images(client: httpx.Client, job_id: str) -> dict[int, str]:
    while True:
        try:
            job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        if job["finished_at"]:
            break
        time.sleep(0.1)
    assert (job["status"], job["num_failed"]) == ("succeeded", 0)
    items = client.get(job["links"]["items"], params={"limit": 1000}).json()["items"]
    return {item["index"]: item["image"]["sha256"] for item in items}


def wait_for(client: httpx.Client, job_id: str, count: int) -> None:
    """Wait until so many items are made."""
    while client.get(f"/v1/jobs/{job_id}").json()["num_succeeded"] < count:
        time.sleep(0.05)


def live(client: httpx.Client) -> float:
    text = client.get("/metrics").raise_for_status().text
    lines = [line for line in text.splitlines() if line.startswith("medphantom_live_processes")]
    return sum(float(line.split()[-1]) for line in lines)


def wait_idle(client: httpx.Client) -> None:
    for _ in range(600):
        if live(client) == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the work goes on")


def test_an_image_a_page_and_the_documentation_are_served(client: httpx.Client) -> None:
    assert Image.open(io.BytesIO(image(client))).size == (16, 16)
    assert "medphantom" in client.get("/").text
    assert "swagger" in client.get("/docs").text.lower()
    assert "http://" not in client.get("/docs").text.replace(str(client.base_url), "")


def test_the_readme_lines_work(
    client: httpx.Client, service: ServiceProcess, tmp_path: Path
) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    readme = readme.replace("localhost:8000", service.url.removeprefix("http://"))
    blocks = re.findall(r"```sh\n(curl.*?)```", readme, re.DOTALL)
    image, job = blocks
    subprocess.run(["bash", "-ec", image], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "pneumonia.png").read_bytes().startswith(b"\x89PNG")
    put, *_, delete = re.split(r"\n(?=curl)", job.strip())
    subprocess.run(["bash", "-ec", put], check=True, capture_output=True)
    subprocess.run(["bash", "-ec", delete], check=True, capture_output=True)
    assert client.get("/v1/jobs/my-cohort").json()["status"] == "cancelled"
    (snippet,) = re.findall(r"```python no-test\n(import openai.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    names["client"].close()


def test_the_openai_client_works_and_streams(service: ServiceProcess) -> None:
    service.wait_ready()
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        events = list(client.images.generate(prompt="x", stream=True, partial_images=1))
    assert events[-1].type == "image_generation.completed"


def test_who_goes_away_stops_the_work(client: httpx.Client) -> None:
    body = {**BODY, "n": 16, "num_inference_steps": 200}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/text-to-cxr", json=body, timeout=1)
    wait_idle(client)


def test_a_request_outlives_its_sampler(client: httpx.Client, service: ServiceProcess) -> None:
    before = image(client, num_inference_steps=200, n=1)
    answers: list[bytes] = []
    sender = threading.Thread(target=lambda: answers.append(image(client, num_inference_steps=200)))
    sender.start()
    while live(client) == 0:
        time.sleep(0.02)
    assert service.kill(SAMPLER) == 1
    sender.join()
    first, second = (np.asarray(Image.open(io.BytesIO(each)), int) for each in (before, answers[0]))
    assert np.abs(first - second).max() <= 1


def test_the_service_outlives_its_controller(client: httpx.Client, service: ServiceProcess) -> None:
    assert service.kill(CONTROLLER) == 1
    image(client)
    service.wait_ready()
    image(client)


def test_a_job_outlives_its_sampler_and_its_worker(
    client: httpx.Client, service: ServiceProcess
) -> None:
    undisturbed = job_images(client, "undisturbed", n=24, num_inference_steps=60)
    body = {"task": "text-to-cxr", "spec": {**BODY, "n": 24, "num_inference_steps": 60}}
    client.put("/v1/jobs/disturbed", json=body).raise_for_status()
    for victim, when in ((SAMPLER, 2), (WORKER, 8)):
        wait_for(client, "disturbed", when)
        assert service.kill(victim) == 1
    assert finished_images(client, "disturbed") == undisturbed


def test_a_large_image_outlives_its_sampler_too(
    client: httpx.Client, service: ServiceProcess
) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("RGB").save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    spec = {"variation": [picture], "width": 1024, "height": 512, "seed": 7}
    body = {"task": "large-images", "spec": {**spec, "num_inference_steps": 3}}
    client.put("/v1/jobs/large-undisturbed", json=body).raise_for_status()
    undisturbed = finished_images(client, "large-undisturbed")
    client.put("/v1/jobs/large-disturbed", json=body).raise_for_status()
    while client.get("/v1/jobs/large-disturbed").json()["steps_done"] < 100:
        time.sleep(0.02)
    assert service.kill(SAMPLER) == 1
    assert finished_images(client, "large-disturbed") == undisturbed


def test_a_cancelled_job_stops(client: httpx.Client) -> None:
    body = {"task": "text-to-cxr", "spec": {**BODY, "n": 100, "num_inference_steps": 200}}
    job = client.post("/v1/jobs", json=body).json()
    while live(client) == 0:
        time.sleep(0.02)
    assert client.delete(job["links"]["self"]).json()["status"] == "cancelled"
    wait_idle(client)


def test_nothing_anybody_wrote_is_in_the_logs(
    client: httpx.Client, service: ServiceProcess
) -> None:
    canary = "Zanzibar-4711-canary"
    image(client, prompt=f"a chest x-ray of {canary}")
    job_images(client, "quiet", prompt=canary, negative_prompt=canary)
    client.post("/v1/text-to-cxr", json={**BODY, "prompt": canary, "n": 10**9})
    client.post("/v1/text-to-cxr", json={**BODY, "prompt": canary, "width": 33})
    client.post("/v1/text-to-cxr", content=f'{{"prompt": "{canary}"'.encode())
    client.get("/metrics", headers={"Authorization": f"Bearer {canary}"})
    assert canary not in client.get("/metrics").text
    session = Path("/tmp/ray/session_latest").resolve()
    logs = [service.log, *(path for path in session.rglob("*") if path.is_file())]
    assert len(logs) > 10
    for path in logs:
        assert canary.encode() not in path.read_bytes(), path


def test_it_stops_when_told_to(service: ServiceProcess) -> None:
    assert service.stop() == 0
