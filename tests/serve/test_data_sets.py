"""Jobs over data sets of configured stores: from the manifest to the report."""

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from local_service import Running, running
from PIL import Image
from scipy.ndimage import gaussian_filter

from gen.data.samples import read_tar
from jobs.keys import KeyStore, Scope
from jobs.runner.freeze import freeze
from jobs.runner.items import read_items
from jobs.runner.spec import checked
from jobs.store import JobStore

WAIT_S = 300  # on a machine that does other things, too
QUICK = {"num_inference_steps": 2}
REAL, SIDE = 64, 128
OVER = ("succeeded", "failed", "cancelled")


def chest(seed: int) -> Image.Image:
    """Structure of its own."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.5)
    pixels = 120 + 33 * texture / texture.std() + 3 * rng.normal(size=texture.shape)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def write_table(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store: prompts, three pictures of which one is missing, and real ones to learn from."""
    lab = tmp_path_factory.mktemp("lab")
    prompts = [("id", "prompt"), *((f"row-{i}", f"chest x-ray {i}") for i in range(3)), ("bad", "")]
    write_table(lab / "prompts.csv", *prompts)
    write_table(lab / "twice.csv", ("id", "prompt"), ("a", "chest"), ("a", "chest"))
    write_table(lab / "bare.csv", ("id", "price"), ("a", "3"))
    write_table(lab / "many.csv", ("id", "prompt", "n"), ("a", "chest", "20000"))
    (lab / "real").mkdir()
    rows = [("file", "split", "findings", "patient_id", "prompt")]
    for i in range(REAL):
        chest(i).save(lab / "real" / f"{i}.png")
        finding = "Effusion" if i % 2 else "No Finding"
        rows.append((f"{i}.png", "val" if i > 20 else "train", finding, f"p{i // 2}", "a chest"))
    write_table(lab / "real/manifest.csv", *rows)
    (lab / "few").mkdir()
    for i in range(2):
        chest(100 + i).save(lab / "few" / f"{i}.png")
    write_table(
        lab / "few/manifest.csv",
        ("file", "split", "findings", "patient_id", "prompt"),
        *((f"{i}.png", "train", "Effusion", f"q{i}", "a chest") for i in range(3)),
    )
    (lab / "scant").mkdir()
    for i in range(4):
        chest(200 + i).save(lab / "scant" / f"{i}.png")
    write_table(
        lab / "scant/manifest.csv",
        ("file", "split", "findings", "patient_id", "prompt"),
        *((f"{i}.png", ("train", "val")[i % 2], "Effusion", f"s{i}", "a chest") for i in range(4)),
    )
    return lab


@pytest.fixture(scope="module")
def served(lab: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("service")
    stores = {"lab": str(lab)}
    with running(tiny_model, folder, require_keys=True, stores=stores, lease_s=30) as service:
        yield service


@pytest.fixture
def client(served: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers=served.headers, timeout=WAIT_S) as client:
        yield client


def asked(path: str, task: str = "generate", **fields: Any) -> dict[str, Any]:
    spec = {"task": task, "manifest": {"path": path}, "params": QUICK, **fields}
    return {"task": "data-set", "spec": spec}


def start(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while (now := client.get(f"/v1/jobs/{job['id']}").json())["status"] not in OVER:
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    found: dict[str, Any] = now
    return found


def items_of(client: httpx.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"/v1/jobs/{job['id']}/items").json()["items"]
    return items


def test_rows_become_the_samples_of_the_runner_and_one_bad_row_is_an_error_of_its_own(
    served: Running, client: httpx.Client, lab: Path, tmp_path: Path
) -> None:
    job = ended(client, start(client, asked("lab:prompts.csv", seed=5)))
    assert (job["num_succeeded"], job["num_failed"], job["status"]) == (3, 1, "failed")
    own = checked({**asked(str(lab / "prompts.csv"), seed=5)["spec"], "out": str(tmp_path / "o")})
    (tmp_path / "o").mkdir()
    freeze(own, tmp_path / "o")
    frozen = list(read_items(tmp_path / "o", 0))
    with httpx.Client(base_url=served.url) as stranger:  # signed links need no key
        (tmp_path / "s.tar").write_bytes(stranger.get(job["links"]["samples"]).content)
        lines = stranger.get(job["links"]["errors"]).text.splitlines()
        report = stranger.get(job["links"]["report"]).json()
        page = stranger.get(job["links"]["report"], headers={"Accept": "text/html,*/*;q=0.8"})
        changed = job["links"]["report"][:-1] + ("A" if job["links"]["report"][-1] != "A" else "B")
        assert stranger.get(changed).status_code == 403
        assert stranger.get(f"/v1/jobs/{job['id']}/report").status_code == 401
    samples = list(read_tar(tmp_path / "s.tar"))
    assert [(s.key, s.meta["id"], s.meta["prompt"], s.meta["seed"]) for s in samples] == [
        (item.key, item.id, item.prompt, item.seed(5, 0)) for item in frozen[:3]
    ]
    assert all(s.meta["synthetic"] and s.meta["split"] == "train" for s in samples)
    assert Image.open(io.BytesIO(samples[0].files["png"])).mode == "L"
    (line,) = map(json.loads, lines)
    assert (line["id"], line["key"]) == ("bad", frozen[3].key)
    assert "neither a prompt nor labels" in line["reason"]
    assert (report["items"], report["made"], report["failed"]) == (4, 3, 1)
    assert report["quality"] is None
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "No gate judged these images" in page.text
    dicom = client.get(items_of(client, job)[0]["image"]["url"] + "&format=dicom")
    assert (dicom.status_code, dicom.content[128:132]) == (200, b"DICM")


@pytest.mark.parametrize(
    ("task", "params", "operation"),
    [
        ("augment", {"operation": "vary", "strength": 1, **QUICK}, "vary"),
        ("anomaly", {"method": "single_step", "threshold": 1}, "map"),
    ],
)
def test_pictures_are_read_from_the_store(
    client: httpx.Client, task: str, params: dict[str, Any], operation: str, lab: Path
) -> None:
    job = ended(client, start(client, asked("lab:few", task, params=params)))
    assert (job["num_succeeded"], job["num_failed"]) == (2, 1)
    made = items_of(client, job)
    assert [item["record"]["source"] for item in made[:2]] == ["0.png", "1.png"]
    assert all(item["record"]["operation"] == operation for item in made[:2])
    assert made[0]["record"]["source_sha256"] == made[0]["record"]["record"]["source_sha256"]
    assert "2.png" in made[2]["error"]
    assert str(lab) not in made[2]["error"]
    shown = client.get(made[0]["image"]["url"] + "&format=preview")
    assert shown.headers["content-type"] == "image/png"
    page = client.get(job["links"]["report"], headers={"Accept": "text/html"})
    assert "data:image/" in page.text


def test_gates_learn_once_and_judge(client: httpx.Client) -> None:
    gates = {"reference": "lab:real", "labels": False, "sanity": False, "copies": {"planted": 0}}
    kept = start(client, asked("lab:prompts.csv", gates=gates, max_attempts=2))
    both = {**gates, "sanity": {"false_alarm_rate": 0.5}}
    refused = start(client, asked("lab:prompts.csv", gates=both, max_attempts=2))
    job = ended(client, kept)
    assert job["num_succeeded"] == 3
    (verdict,) = items_of(client, job)[0]["record"]["gates"]
    assert (verdict["gate"], verdict["passed"]) == ("copies", True)
    found = client.get(job["links"]["report"]).json()["quality"]
    assert (found["overall"]["items"], found["overall"]["given_up"]) == (3, 0)
    assert found["gates"]["copies"]["floor"] is not None  # of what the gates were judged by
    page = client.get(job["links"]["report"], headers={"Accept": "text/html"}).text
    assert "What the gates learnt from" in page

    job = ended(client, refused)  # an untrained model makes no picture that passes
    assert job["num_failed"] == 4
    assert items_of(client, job)[0]["error"].startswith("given up after 2 attempts")
    found = client.get(job["links"]["report"]).json()["quality"]
    assert (found["overall"]["items"], found["overall"]["attempts"]) == (3, 6)
    assert found["gates"]["sanity"]["refused"]["value"] == 1
    lines = client.get(job["links"]["errors"]).text.splitlines()
    assert [json.loads(line)["attempts"] for line in lines] == [2, 2, 2, 0]


def test_what_gates_cannot_learn_from_is_told_by_every_item(
    client: httpx.Client, lab: Path
) -> None:
    gates = {"reference": "lab:scant", "labels": False, "sanity": False, "copies": {"planted": 0}}
    job = ended(client, start(client, asked("lab:prompts.csv", gates=gates)))
    assert job["num_failed"] == 4
    for item in items_of(client, job)[:3]:
        assert str(lab) not in item["error"]
        assert item["attempts"] <= 1  # it is of no use to try again


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (asked("/etc/passwd"), "must name a data set of a configured store"),
        (asked("../lab"), "must name a data set of a configured store"),
        (asked("file:///etc"), "must name a data set of a configured store"),
        (asked("s3://bucket/x"), "must name a data set of a configured store"),
        (asked("lab:../../etc"), "leaves store 'lab'"),
        (asked("elsewhere:x"), "store 'elsewhere' is not configured; configured are lab"),
        (asked("lab:nothing"), "has no 'nothing'"),
        (asked("lab:bare.csv"), "has no column for prompt or labels"),
        (asked("lab:twice.csv"), "has the id 'a', which row 1 has"),
        (asked("lab:many.csv"), "more than 10000 items"),
        (asked("lab:prompts.csv", out="/tmp/x"), "leave it out"),
        (asked("lab:prompts.csv", mixed_precision="bf16"), "leave it out"),
        (asked("lab:prompts.csv", task="large"), "task"),
        (asked("lab:prompts.csv", params={"strange": 1}), "params.strange"),
        (asked("lab:prompts.csv", gates={"reference": "/etc"}), "gates.reference must name"),
        (asked("lab:prompts.csv", gates={"reference": "lab:gone"}), "has no 'gone'"),
        (asked("lab:prompts.csv", gates={}), "gates.reference"),
        (
            asked("lab:prompts.csv", gates={"reference": "lab:real", "copies": {"encoder": "/x"}}),
            "gates.copies.encoder must be cxr-encoder-mini",
        ),
        (
            asked("lab:few", "anomaly", params={"threshold": 1}, gates={"reference": "lab:real"}),
            "cannot judge what anomaly makes",
        ),
        (
            {
                "task": "data-set",
                "spec": {"task": "generate", "manifest": {"path": "lab:few", "root": "/etc"}},
            },
            "manifest.root must name",
        ),
    ],
)
def test_what_is_wrong_with_the_whole_is_said_at_once(
    client: httpx.Client, lab: Path, body: dict[str, Any], said: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    message = answer.json()["error"]["message"]
    assert said in message
    assert str(lab) not in message


def test_a_key_needs_the_scope_data(served: Running) -> None:
    keys = KeyStore(served.service.args.store)
    _, secret = keys.create("no data", [Scope.GENERATE, Scope.JOBS], None)
    _, poor = keys.create("poor", [Scope.JOBS, Scope.DATA], 1e-6)
    keys.close()
    for each, status in ((secret, 403), (poor, 422)):
        headers = {"Authorization": f"Bearer {each}"}
        answer = httpx.post(f"{served.url}/v1/jobs", json=asked("lab:prompts.csv"), headers=headers)
        assert answer.status_code == status
    assert "megapixel steps" in answer.json()["error"]["message"]


def test_other_jobs_have_no_report(client: httpx.Client) -> None:
    spec = {"prompt": "a chest", "num_inference_steps": 1}
    job = start(client, {"task": "text-to-cxr", "spec": spec})
    assert job["links"]["report"] is None
    assert client.get(f"/v1/jobs/{job['id']}/report").status_code == 422


def test_a_job_survives_its_worker_and_another_can_be_cancelled(
    lab: Path, tiny_model: str, tmp_path: Path
) -> None:
    stores = {"lab": str(lab)}
    with running(tiny_model, tmp_path, works=False, stores=stores) as idle:
        with httpx.Client(base_url=idle.url) as client:
            job = start(client, asked("lab:prompts.csv"))
            other = start(client, asked("lab:prompts.csv", n=20))
            answer = client.delete(f"/v1/jobs/{other['id']}").json()
        assert (answer["status"], answer["num_items"]) == ("cancelled", 80)
        store = JobStore(idle.service.args.store)
        assert len(store.lease("a worker that dies now", 2, 0.5)) == 2
        store.close()
    with (
        running(tiny_model, tmp_path, stores=stores) as alive,
        httpx.Client(base_url=alive.url) as client,
    ):
        job = ended(client, job)
        assert (job["num_succeeded"], job["num_failed"]) == (3, 1)
        (tmp_path / "s.tar").write_bytes(client.get(job["links"]["samples"]).content)
    ids = [sample.meta["id"] for sample in read_tar(tmp_path / "s.tar")]
    assert ids == ["row-0", "row-1", "row-2"]
