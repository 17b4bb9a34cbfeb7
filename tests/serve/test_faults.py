"""Longer torments of the real service: `make faults`."""

import contextlib
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_process import ServiceProcess, resident_bytes
from test_service import BODY, CONTROLLER, SAMPLER, WORKER, finished_images, job_images, wait_for

from jobs.keys import KeyStore, Scope

pytestmark = pytest.mark.faults

KILLS, ITEMS = 20, 200


def test_twenty_kills_lose_and_change_nothing(tiny_model: str, tmp_path: Path) -> None:
    draw = random.Random(1)
    spec = {**BODY, "n": ITEMS, "num_inference_steps": 100}
    with (
        ServiceProcess(tmp_path, tiny_model) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        undisturbed = job_images(client, "undisturbed", **spec)
        body = {"task": "text-to-cxr", "spec": spec}
        client.put("/v1/jobs/disturbed", json=body).raise_for_status()
        killed: Counter[str] = Counter()
        for kill in range(KILLS):
            time.sleep(draw.uniform(0.5, 3))
            victim = draw.choice([SAMPLER, SAMPLER, WORKER, CONTROLLER, "everything"])
            if victim == "everything":
                service.kill_all()
                service.start()
            else:
                service.kill(victim)
            killed[victim] += 1
            if kill % 4 == 3:  # let it come back now and then, or nothing would be done
                service.wait_ready()
        service.wait_ready()
        disturbed = finished_images(client, "disturbed")
        job = client.get("/v1/jobs/disturbed").json()
    assert sum(killed.values()) == KILLS
    assert (job["num_succeeded"], job["num_items"]) == (ITEMS, ITEMS)
    assert disturbed == undisturbed
    files = list((tmp_path / "data/results/disturbed").iterdir())
    named = {path.name.split("-")[0] for path in files}
    assert len(named) == len(files) == ITEMS  # none twice


def test_a_job_outlives_all_of_ray(tiny_model: str, tmp_path: Path) -> None:
    spec = {**BODY, "n": 24, "num_inference_steps": 60}
    with (
        ServiceProcess(tmp_path, tiny_model) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        undisturbed = job_images(client, "undisturbed", **spec)
        body = {"task": "text-to-cxr", "spec": spec}
        client.put("/v1/jobs/disturbed", json=body).raise_for_status()
        wait_for(client, "disturbed", 6)
        service.kill_all()
        service.start()
        assert finished_images(client, "disturbed") == undisturbed


def test_overload_is_turned_away_politely(tiny_model: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    keys = KeyStore(store)
    secrets = {name: keys.create(name, list(Scope), None)[1] for name in ("greedy", "polite")}
    limits = {"max_live_requests_per_key": 4, "max_queued_requests_per_key": 4}
    answers: dict[str, list[httpx.Response]] = {"greedy": [], "polite": []}

    def send(client: httpx.Client, name: str) -> None:
        headers = {"Authorization": f"Bearer {secrets[name]}"}
        body = {**BODY, "num_inference_steps": 30}
        answers[name].append(client.post("/v1/text-to-cxr", json=body, headers=headers))

    pool_limits = httpx.Limits(max_connections=100)
    with (
        ServiceProcess(tmp_path, tiny_model, store=store, require_keys=True, **limits) as service,
        httpx.Client(base_url=service.url, timeout=120, limits=pool_limits) as client,
        ThreadPoolExecutor(80) as pool,
    ):
        stop = threading.Event()

        def flood() -> int:
            sent = 0
            while not stop.wait(0.5):
                send(client, "greedy")
                sent += 1
            return sent

        floods = [pool.submit(flood) for _ in range(80)]  # ten times what one key may have
        for _ in range(20):
            send(client, "polite")
        stop.set()
        num_sent = sum(each.result() for each in floods)
    assert len(answers["greedy"]) == num_sent
    statuses = Counter(answer.status_code for answer in answers["greedy"])
    assert set(statuses) == {200, 429}
    for answer in answers["greedy"]:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers["polite"]] == [200] * 20


def test_two_thousand_requests_leave_memory_flat(tiny_model: str, tmp_path: Path) -> None:
    body = {**BODY, "num_inference_steps": 1, "n": 2}
    with (
        ServiceProcess(tmp_path, tiny_model) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):

        def send(count: int) -> dict[str, int]:
            with ThreadPoolExecutor(4) as pool:
                answers = pool.map(
                    lambda _: client.post("/v1/text-to-cxr", json=body).status_code,
                    range(count),
                )
                assert set(answers) == {200}
            titles = (SAMPLER, "ServeReplica:medphantom:Ingress", "ProxyActor")
            return {title: resident_bytes(service.pids(title)[0]) for title in titles}

        warm = send(500)
        after = send(1500)
    growth = {title: (after[title] - warm[title]) / 2**20 for title in warm}
    assert all(megabytes < 30 for megabytes in growth.values()), growth


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_holds_a_job_up_but_loses_nothing(
    tiny_model: str, tmp_path: Path, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with (
        ServiceProcess(tmp_path, tiny_model, results=str(small_disk)) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        body = {"task": "text-to-cxr", "spec": {**BODY, "n": 4}}
        job = client.post("/v1/jobs", json=body).raise_for_status().json()
        time.sleep(5)
        state = client.get(job["links"]["self"]).json()
        assert (state["num_succeeded"], state["num_failed"]) == (0, 0)
        assert not state["finished_at"]
        ballast.unlink()
        assert len(finished_images(client, job["id"])) == 4


def test_many_watchers_and_callers_at_once_are_served(tiny_model: str, tmp_path: Path) -> None:
    with (
        ServiceProcess(tmp_path, tiny_model) as service,
        httpx.Client(base_url=service.url, timeout=120) as client,
    ):
        body = {"task": "text-to-cxr", "spec": {**BODY, "n": 40, "num_inference_steps": 50}}
        job = client.post("/v1/jobs", json=body).json()
        ends: list[str] = []

        def watch() -> None:
            with httpx.stream("GET", service.url + job["links"]["events"], timeout=120) as answer:
                ends.append(list(answer.iter_lines())[-3:][0])

        watchers = [threading.Thread(target=watch) for _ in range(20)]
        for watcher in watchers:
            watcher.start()
        answer: Any = client.post("/v1/text-to-cxr", json=BODY)
        assert answer.status_code == 200
        for watcher in watchers:
            watcher.join()
    assert len(ends) == 20
