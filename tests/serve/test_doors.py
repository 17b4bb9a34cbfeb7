"""Who may come in, what for and how often; and that no secret ever leaves."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from local_service import Running, running
from torch import Tensor

from jobs.keys import Key, KeyStore, Scope
from jobs.model_pool import LoadedModel
from jobs.tasks import TASKS
from jobs.work import Done, Failed, Work

CANARY = "canary" + "-7f3a"  # put together here, so that no source line in a log has it
BODY = {"prompt": CANARY, "num_inference_steps": 2, "seed": 7}
COST = 2 * 2 * 256 * 256 / 1e6  # guidance doubles the rows
JOB = {"task": "text-to-cxr", "spec": BODY}
RESULT = "/v1/results/{job_id}/{index}"
TILES = {f"{RESULT}/tiles", f"{RESULT}/tiles/{{level}}/{{column}}/{{row}}"}
FILES = f"{RESULT}/files/{{name}}"
PUBLIC = {"/health/live", "/health/ready", RESULT, FILES, *TILES}
NOW = 7200.0 + 1800  # half past two

NewKey = Callable[..., tuple[Key, httpx.Client]]


@pytest.fixture(scope="module")
def guarded(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that asks for keys, and lets each have one request at once and one waiting."""
    folder = tmp_path_factory.mktemp("guarded")
    few = {"max_live_requests_per_key": 1, "max_queued_requests_per_key": 1}
    with running(tiny_model, folder, require_keys=True, **few) as service:
        service.service.doors._keys._clock = lambda: NOW
        yield service


@pytest.fixture(scope="module")
def keys(guarded: Running) -> Iterator[KeyStore]:
    """Its keys."""
    keys = KeyStore(guarded.service.args.store)
    yield keys
    keys.close()


@pytest.fixture
def new_key(guarded: Running, keys: KeyStore) -> Iterator[NewKey]:
    """A function from scopes and quota to a key and a client that sends it."""
    clients: list[httpx.Client] = []

    def make(*scopes: Scope, quota: float | None = None) -> tuple[Key, httpx.Client]:
        key, secret = keys.create("someone", scopes or (Scope.GENERATE, Scope.JOBS), quota)
        headers = {"Authorization": f"Bearer {secret}"}
        clients.append(httpx.Client(base_url=guarded.url, headers=headers, timeout=60))
        return key, clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def stranger(guarded: Running) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=guarded.url, timeout=60) as client:
        yield client


@pytest.fixture
def admin(guarded: Running) -> Iterator[httpx.Client]:
    """A client with a key for everything."""
    with httpx.Client(base_url=guarded.url, headers=guarded.headers, timeout=60) as client:
        yield client


def generate(client: httpx.Client, **change: Any) -> httpx.Response:
    return client.post("/v1/text-to-cxr", json={**BODY, **change})


def queue(client: httpx.Client, **change: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={**JOB, "spec": {**BODY, **change}})


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["type"])


def finish(client: httpx.Client, job_id: str) -> None:
    """Wait for the job's last event."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=60) as answer:
        assert "finished" in "".join(answer.iter_text())


def test_every_route_but_the_public_ones_asks_for_a_key(stranger: httpx.Client) -> None:
    paths = stranger.get("/openapi.json").json()["paths"]
    assert len(paths) > 8
    for path, methods in paths.items():
        for method in methods:
            address = path.replace("{job_id}", "x").replace("{index}", "0")
            answer = stranger.request(method, address)
            if path in PUBLIC:
                assert answer.status_code in (200, 422)
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert kind(answer) == "authentication_error"
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer mp_",
        f"Bearer mp_0123456789ab_{'A' * 43}",
        "Bearer " + "x" * 4000,
        "Basic bXA6bXA=",
        "mp_0123456789ab",
    ],
)
def test_what_is_no_key_of_ours_is_refused(stranger: httpx.Client, header: str) -> None:
    answer = stranger.get("/v1/jobs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert header.removeprefix("Bearer ") not in answer.text.replace("Bearer mp_...", "")


def test_a_key_opens_what_its_scopes_name_and_nothing_else(new_key: NewKey) -> None:
    opened: dict[Scope, dict[str, int]] = {}
    for scope in Scope:
        _, client = new_key(scope)
        answers = {
            "generate": generate(client),
            "models": client.get("/v1/models"),
            "openai": client.post("/v1/images/generations", json={"prompt": "a"}),
            "jobs": client.get("/v1/jobs"),
            "queue": queue(client),
            "metrics": client.get("/metrics"),
        }
        opened[scope] = {name: answer.status_code for name, answer in answers.items()}
        for answer in answers.values():
            if answer.status_code == 403:
                assert kind(answer) == "permission_error"
                assert "lacks the scope" in answer.json()["error"]["message"]
    closed = dict.fromkeys(opened[Scope.JOBS], 403)
    assert opened == {
        Scope.GENERATE: {**closed, "generate": 200, "models": 200, "openai": 200},
        Scope.JOBS: {**closed, "jobs": 200, "queue": 201},
        Scope.METRICS: {**closed, "metrics": 200},
        Scope.PACS: closed,
        Scope.DATA: closed,
    }


def test_a_revoked_key_opens_nothing_and_its_jobs_go_on(
    guarded: Running, new_key: NewKey, keys: KeyStore
) -> None:
    key, client = new_key()
    job_id = queue(client, num_inference_steps=60).json()["id"]
    keys.revoke(key.id)
    for answer in (generate(client), client.get("/v1/jobs"), client.get(f"/v1/jobs/{job_id}")):
        assert answer.status_code == 401
        assert "revoked" in answer.json()["error"]["message"]
    for _ in range(400):
        if guarded.service.store.get(job_id).state.is_final:
            break
        threading.Event().wait(0.05)
    assert guarded.service.store.get(job_id).state == "succeeded"


def test_a_quota_ends_with_429_and_the_seconds_to_the_next_hour(
    new_key: NewKey, admin: httpx.Client
) -> None:
    _, client = new_key(quota=2.5 * COST)
    assert [generate(client).status_code for _ in range(3)] == [200, 200, 429]
    refusal = generate(client)
    assert refusal.headers["retry-after"] == "1800"
    assert kind(refusal) == "busy"
    assert queue(client).status_code == 429
    assert generate(client, num_inference_steps=1).status_code == 200  # so much is left
    page = admin.get("/metrics").text
    rejected = [line for line in page.splitlines() if 'reason="quota"' in line]
    assert float(rejected[0].split()[-1]) >= 3


def test_jobs_are_paid_when_they_are_accepted_and_only_once(new_key: NewKey) -> None:
    key, client = new_key(quota=2.5 * COST)
    address = f"/v1/jobs/paid-{key.id}"
    answers = [client.put(address, json=JOB).status_code for _ in range(5)]
    assert answers == [201, 200, 200, 200, 200]
    assert queue(client).status_code == 201
    assert queue(client).status_code == 429


def test_what_fails_or_could_never_be_paid_costs_nothing(new_key: NewKey) -> None:
    _, client = new_key(quota=1.5 * COST)
    for _ in range(3):
        assert generate(client, width=257).status_code == 422  # not of the model
        assert generate(client, wdith=1).status_code == 422
        assert generate(client, n=2).status_code == 422  # more than a whole hour's
        assert "hour" in generate(client, n=2).json()["error"]["message"]
    assert generate(client).status_code == 200
    assert generate(client).status_code == 429


def test_other_peoples_jobs_are_not_there(new_key: NewKey, stranger: httpx.Client) -> None:
    _, ann = new_key()
    key, bob = new_key()
    body = {**JOB, "spec": {**BODY, "n": 20, "num_inference_steps": 200}}
    job_id = f"hers-{key.id}"
    assert ann.put(f"/v1/jobs/{job_id}", json=body).status_code == 201
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/items"),
        ("GET", "/events"),
        ("GET", "/events?after=0"),
    ):
        theirs = bob.request(method, f"/v1/jobs/{job_id}{path}")
        nobodys = bob.request(method, f"/v1/jobs/nobodys{path}")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.json() == nobodys.json()
    assert bob.get("/v1/jobs").json()["jobs"] == []
    taken = bob.put(f"/v1/jobs/{job_id}", json=body)
    assert taken.status_code == 422
    assert CANARY not in taken.text
    assert ann.get(f"/v1/jobs/{job_id}").json()["status"] in ("queued", "running")
    assert ann.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_one_idempotency_key_of_two_callers_makes_two_jobs(new_key: NewKey) -> None:
    clients = [new_key()[1] for _ in range(2)]
    headers = {"Idempotency-Key": "monday"}
    ids = [
        client.post("/v1/jobs", json=JOB, headers=headers).json()["id"] for client in clients * 2
    ]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


def test_a_signed_link_needs_no_key_and_opens_one_result(
    new_key: NewKey, stranger: httpx.Client
) -> None:
    _, client = new_key()
    job = queue(client, n=2).json()
    finish(client, job["id"])
    items = client.get(job["links"]["items"]).json()["items"]
    links = [item["image"]["url"] for item in items]
    assert stranger.get(links[0]).status_code == 200
    other = links[0].replace("/0?", "/1?")
    assert stranger.get(other).status_code == 403
    assert client.get(other).status_code == 403  # a key does not replace the signature


@pytest.fixture
def held(guarded: Running) -> Iterator[threading.Event]:
    """Set it to let forwards of the text encoder go on."""
    pool, opened = guarded.executor.pool, threading.Event()
    model: LoadedModel = pool.acquire(TASKS["text-to-cxr"], pool.allowed[0])
    encode = model.networks["text_encoder"]

    def wait(*rows: Tensor) -> Tensor:
        assert opened.wait(60)
        return encode(*rows)

    model.networks["text_encoder"] = wait
    yield opened
    opened.set()
    model.networks["text_encoder"] = encode
    pool.release(model)


def test_who_floods_waits_for_itself_alone(
    guarded: Running, new_key: NewKey, held: threading.Event
) -> None:
    _, ann = new_key()
    _, bob = new_key()
    with ThreadPoolExecutor(4) as pool:
        hers = [pool.submit(generate, ann, seed=seed) for seed in range(2)]
        while sum(guarded.service.admission._present.values()) < 2:
            threading.Event().wait(0.01)
        refusal = generate(ann)
        assert refusal.status_code == 429
        assert int(refusal.headers["retry-after"]) >= 1
        his = pool.submit(generate, bob)
        while sum(guarded.service.admission._present.values()) < 3:
            threading.Event().wait(0.01)
        held.set()
        assert [answer.result().status_code for answer in (*hers, his)] == [200, 200, 200]


def test_no_secret_and_no_prompt_is_logged_or_repeated_in_an_error(
    guarded: Running,
    new_key: NewKey,
    stranger: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, client = new_key(quota=20 * COST)
    secret = client.headers["authorization"].split()[1]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")

    async def broken(work: Work) -> list[Done | Failed]:
        raise RuntimeError(f"choked on {work.spec}")

    with caplog.at_level(logging.DEBUG, "medphantom"), caplog.at_level(logging.INFO):
        job = queue(client).json()
        finish(client, job["id"])
        link = client.get(job["links"]["items"]).json()["items"][0]["image"]["url"]
        stranger.get(link)
        refused = [
            stranger.get("/v1/jobs", headers={"Authorization": f"Bearer {wrong}"}),
            client.get("/metrics"),
            generate(client, guidance_scale=CANARY),
            generate(client, prompt=[CANARY] * 1001),
            generate(client, seed=[1, 2]),
            generate(client, width=33),
            generate(client, model=CANARY),
            generate(client, n=16, num_inference_steps=200),
            client.post("/v1/text-to-cxr", content=f'{{"prompt": "{CANARY}'),
            client.post("/v1/jobs", json={"task": CANARY, "spec": BODY}),
            client.get(f"/v1/jobs/{CANARY}"),
            client.get(f"/{CANARY}"),
            client.put(f"/v1/jobs/{job['id']}", json={**JOB, "spec": {**BODY, "seed": 8}}),
        ]
        with monkeypatch.context() as patch:
            patch.setattr(guarded.service.backend, "make", broken)
            refused.append(generate(client))
    assert [answer.status_code for answer in refused][-1] == 500
    assert all(answer.status_code >= 400 for answer in refused)
    for answer in refused:
        for words in (secret, wrong, secret.split("_")[2], CANARY):
            assert words not in answer.text
            assert words not in str(answer.headers)
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("medphantom")
    )
    assert "RuntimeError" in ours
    everything = caplog.text.replace(f"{guarded.url}/v1/jobs/{CANARY}", "").replace(
        f"{guarded.url}/{CANARY}", ""
    )  # what httpx, the client, says of addresses
    signature = link.split("signature=")[1]
    for words in (secret, wrong, secret.split("_")[2], CANARY):
        assert words not in everything
        assert words not in ours
    assert signature not in ours


def test_every_answer_forbids_sniffing_and_keeping(stranger: httpx.Client, new_key: NewKey) -> None:
    _, client = new_key()
    for answer in (
        stranger.get("/v1/jobs"),
        stranger.get("/nothing"),
        stranger.post("/v1/text-to-cxr", content=b"x" * 70000),
        client.get("/v1/jobs"),
        generate(client, wdith=1),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_requests_are_counted_by_route_not_by_address(
    admin: httpx.Client, stranger: httpx.Client
) -> None:
    stranger.get("/v1/jobs/somebodys")
    stranger.get("/wp-admin")
    page = admin.get("/metrics").text
    assert 'route="/v1/jobs/{job_id}",status="401"' in page
    assert 'route="other",status="404"' in page
    assert "somebodys" not in page
    assert "wp-admin" not in page
