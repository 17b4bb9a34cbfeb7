"""Jobs over a study of a real PACS: every picture is mapped, and results go back to it once."""

import asyncio
import io
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from dicom_validator import complaints
from local_service import Running, running
from loopback_server import free_port
from orthanc_server import PASSWORD, USER
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from radiographs import radiograph
from scipy.ndimage import gaussian_filter

from gen.data.bundle import unpack
from gen.errors import Busy, PeerAway
from jobs.job import Item, Lease
from jobs.keys import KeyStore, Scope
from jobs.pacs.connection import PACS
from jobs.pacs.settings import PACSSettings
from jobs.pacs.storage import store
from jobs.tables import State
from jobs.tasks.study import Study
from jobs.work import Done, Work
from jobs.worker import Execute, Worker
from serve import studies
from serve.studies import Studies, with_studies

HEIGHT, WIDTH = 48, 36
WORD = "canaryword"
SPEC: dict[str, Any] = {"method": "single_step", "threshold": 0.001, "prompt": WORD}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a PACS to come back."""
    monkeypatch.setattr("jobs.pacs.connection.WAITS_S", ())
    monkeypatch.setattr(studies, "AWAY_S", 0.01)
    monkeypatch.setattr("jobs.worker.POLL_S", 0.02)
    monkeypatch.setattr("jobs.worker.AFTER_LOSS_S", 0.01)


@pytest.fixture(scope="module")
def entries(orthanc_url: str) -> dict[str, dict[str, Any]]:
    """A PACS that takes results, the same one that takes none, and one that is gone."""
    archive = {"url": orthanc_url, "username": USER, "password": PASSWORD}
    gone = {"url": f"http://127.0.0.1:{free_port()}/dicom-web", "store_results": True}
    return {"archive": {**archive, "store_results": True}, "closed": archive, "gone": gone}


@pytest.fixture(scope="module")
def pacs(entries: dict[str, Any]) -> PACS:
    return PACS(PACSSettings.model_validate(entries["archive"]))


@pytest.fixture(scope="module")
def served(
    tiny_model: str, entries: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with running(tiny_model, tmp_path_factory.mktemp("studies"), pacs=entries) as service:
        yield service


@pytest.fixture(scope="module")
def idle(
    tiny_model: str, entries: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service whose jobs wait for the tests' own workers."""
    folder = tmp_path_factory.mktemp("idle")
    with running(tiny_model, folder, works=False, pacs=entries) as service:
        yield service


@pytest.fixture
def client(served: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def sources(patient: str, count: int = 1) -> list[Dataset]:
    """Radiographs of one study, of smooth noise, dark where dense."""
    made = []
    for number in range(count):
        noise = np.random.default_rng(number).random((HEIGHT, WIDTH))
        smooth = gaussian_filter(noise, 4)
        pixels = 500 + 3000 * (smooth - smooth.min()) / np.ptp(smooth)
        source = radiograph(np.rint(pixels).astype(np.uint16), patient)
        source.SOPInstanceUID = uid.generate_uid(entropy_srcs=[patient, str(number)])
        source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
        made.append(source)
    return made


@pytest.fixture
def study(pacs: PACS, request: pytest.FixtureRequest) -> str:
    """The UID of a study of one picture, of this test alone."""
    (source,) = sources(request.node.name[:60])
    store(pacs, [source])
    return str(source.StudyInstanceUID)


def asked(study_uid: str, name: str = "archive", **fields: Any) -> dict[str, Any]:
    return {**SPEC, "study": {"pacs": name, "study_instance_uid": study_uid, **fields}}


def wait(client: httpx.Client, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    for _ in range(1200):
        job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        if job["finished_at"]:
            return job, client.get(job["links"]["items"]).raise_for_status().json()["items"]
        time.sleep(0.05)
    raise AssertionError(f"job {job_id} is {job['status']}")


def kept(pacs: PACS, study_uid: str) -> dict[str, Dataset]:
    """The objects of a study by their UIDs."""
    found = {}
    for row in pacs.client.search_for_instances(study_instance_uid=study_uid):
        uids = [row[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")]
        found[uids[-1]] = pacs.client.retrieve_instance(*uids)
    return found


def kinds(pacs: PACS, study_uid: str) -> Counter[str]:
    return Counter(str(each.Modality) for each in kept(pacs, study_uid).values())


def test_each_picture_of_a_study_is_mapped_and_gets_its_results_once(
    served: Running,
    client: httpx.Client,
    pacs: PACS,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    pictures = sources("served-twice", 2)
    study_uid = str(pictures[0].StudyInstanceUID)
    store(pacs, pictures)
    spec = asked(study_uid, store=True)
    answer = client.post("/v1/anomaly-maps", json=spec)
    assert answer.status_code == 202, answer.text
    job, items = wait(client, answer.json()["id"])
    assert (job["status"], job["num_items"]) == ("succeeded", 2)
    assert job["spec"]["study"] == {**spec["study"], "series_instance_uid": None}
    assert [each["seed"] for each in items] == [0, 0]

    there = kept(pacs, study_uid)
    assert Counter(str(each.Modality) for each in there.values()) == {"CR": 2, "SEG": 2, "OT": 2}
    referred = set()
    for item in items:
        assert "1.2." not in str(item["record"])
        files = unpack(client.get(item["image"]["url"]).raise_for_status().content)
        for name in ("mask.dcm", "overlay.dcm"):
            made = dcmread(io.BytesIO(files[name]))
            same = there[str(made.SOPInstanceUID)]
            assert np.array_equal(same.pixel_array, made.pixel_array)
            assert (same.Rows, same.Columns, same.PatientID) == (HEIGHT, WIDTH, "served-twice")
            path = tmp_path / name
            same.save_as(path, enforce_file_format=True)
            assert complaints(path) == []
            reference = same.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
            referred.add(str(reference.ReferencedSOPInstanceUID))
    assert referred == {str(each.SOPInstanceUID) for each in pictures}

    # another job over the same study finds the two pictures alone, and stores nothing new
    again = client.put("/v1/jobs/again", json={"task": "anomaly-maps", "spec": spec})
    assert again.status_code == 201
    assert client.put("/v1/jobs/again", json={"task": "anomaly-maps", "spec": spec}).is_success
    job, repeated = wait(client, "again")
    assert (job["status"], job["num_items"]) == ("succeeded", 2)
    sums = [[each["image"]["sha256"] for each in made] for made in (items, repeated)]
    assert sums[0] == sums[1]
    assert set(kept(pacs, study_uid)) == set(there)
    secrets = (study_uid, *there, "served-twice", "Canary", WORD, PASSWORD)
    assert not [each for each in secrets if each in caplog.text]


def test_without_store_the_pacs_stays_as_it_is(
    client: httpx.Client, pacs: PACS, study: str
) -> None:
    for name in ("archive", "closed"):
        job_id = client.post("/v1/anomaly-maps", json=asked(study, name)).json()["id"]
        job, (item,) = wait(client, job_id)
        assert job["status"] == "succeeded"
        assert "mask.dcm" in item["record"]["files"]
    assert kinds(pacs, study) == {"CR": 1}


def test_a_series_of_a_study_can_be_named(client: httpx.Client, pacs: PACS) -> None:
    first, other = sources("two-series", 2)
    other.SeriesInstanceUID = uid.generate_uid()
    store(pacs, [first, other])
    spec = asked(str(first.StudyInstanceUID), series_instance_uid=str(other.SeriesInstanceUID))
    job, _ = wait(client, client.post("/v1/anomaly-maps", json=spec).json()["id"])
    assert (job["status"], job["num_items"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"study": {"pacs": "other"}}, "must be a configured name: archive, closed, gone"),
        ({"study": {"pacs": "http://127.0.0.1:1/x"}}, "pacs is a URL, but must be a configured"),
        ({"study": {"study_instance_uid": "1.2/../Carla"}}, "study_instance_uid: String should"),
        ({"study": {"study_instance_uid": "1." * 32 + "1"}}, "at most 64 characters"),
        ({"study": {"series_instance_uid": "Carla"}}, "series_instance_uid: String should match"),
        ({"study": {"url": "http://127.0.0.1/Carla"}}, "study.url: Extra inputs"),
        ({"study": {"pacs": "closed", "store": True}}, "takes no results of the service"),
        ({"study": {"study_instance_uid": "1.2.3.4.5"}}, "the PACS archive has no picture of it"),
        ({"images": ["aGVsbG8="]}, "no PNG, JPEG or DICOM"),
        ({"study": None}, "images or study must be given"),
        ({"model": "other"}, "model must be one of"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_nothing_is_repeated(
    client: httpx.Client, study: str, fields: dict[str, Any], words: str
) -> None:
    spec = asked(study)
    named = fields.get("study", {})
    spec |= {**fields, "study": None if named is None else {**spec["study"], **named}}
    for path, body in (
        ("/v1/anomaly-maps", spec),
        ("/v1/jobs", {"task": "anomaly-maps", "spec": spec}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 422
        assert words in answer.json()["error"]["message"]
        for secret in ("Carla", study, "127.0.0.1", USER, PASSWORD):
            assert secret not in answer.text


def test_a_study_with_too_many_pictures_is_refused(
    client: httpx.Client, pacs: PACS, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = sources("many", 3)
    store(pacs, pictures)
    monkeypatch.setattr(studies, "MAX_STUDY_PICTURES", 2)
    answer = client.post("/v1/anomaly-maps", json=asked(str(pictures[0].StudyInstanceUID)))
    assert answer.status_code == 422
    assert "more than 2 pictures" in answer.json()["error"]["message"]


def test_a_pacs_that_is_gone_makes_no_job_and_says_so(client: httpx.Client) -> None:
    answer = client.put(
        "/v1/jobs/early", json={"task": "anomaly-maps", "spec": asked("1.2.3", "gone")}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the PACS gone cannot be asked to search" in answer.json()["error"]["message"]
    assert "127.0.0.1" not in answer.text
    assert client.get("/v1/jobs/early").status_code == 404


def test_too_many_who_wait_for_a_pacs_are_turned_away() -> None:
    async def ask(silent: socket.socket) -> None:
        host, port = silent.getsockname()
        settings = PACSSettings(url=f"http://{host}:{port}/dicom-web")
        asking = Studies({"archive": settings}, num_threads=1)
        question = Study(pacs="archive", study_instance_uid="1.2.3")
        first = asyncio.create_task(asking.search(question))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="too many wait"):
            await asking.search(question)
        silent.close()  # who waits is let go
        with pytest.raises(PeerAway):
            await first

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes questions, answers none
        asyncio.run(ask(silent))


def test_a_key_needs_the_scope_of_patients(
    tiny_model: str, entries: dict[str, Any], tmp_path: Path, study: str
) -> None:
    with running(tiny_model, tmp_path, works=False, require_keys=True, pacs=entries) as service:
        keys = KeyStore(service.service.args.store)
        scopes = [Scope.GENERATE, Scope.JOBS]
        for allowed, status in ((scopes, 403), ([*scopes, Scope.PACS], 202)):
            _, secret = keys.create("someone", allowed, None)
            headers = {"Authorization": f"Bearer {secret}"}
            answer = httpx.post(
                f"{service.url}/v1/anomaly-maps", json=asked(study), headers=headers, timeout=60
            )
            assert answer.status_code == status
        keys.close()


# workers that die, and a PACS that goes while there is work


def accepted(service: Running, spec: dict[str, Any]) -> str:
    answer = httpx.post(f"{service.url}/v1/anomaly-maps", json=spec, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def work_of(lease: Lease) -> Work:
    return Work(
        lease.task, lease.job_id, lease.owner, lease.job_spec, {lease.index: lease.item_spec},
        exact=True,
    )  # fmt: skip


def work_off(service: Running, execute: Execute, job_id: str) -> Item:
    """Have a worker end a job of one item."""
    jobs = service.service.store
    worker = Worker(jobs, service.service.sink, execute, "heir", 2, 3)

    async def main() -> None:
        task = asyncio.create_task(worker.run())
        for _ in range(2400):
            if jobs.get(job_id).state.is_final:
                break
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return jobs.item(job_id, 0)


def test_results_are_stored_once_though_the_worker_dies_and_the_item_is_made_again(
    idle: Running, pacs: PACS, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts: list[str] = []
    post = requests.Session.post

    def noted(self: requests.Session, url: str, **arguments: Any) -> requests.Response:
        posts.append(url)
        return post(self, url, **arguments)

    monkeypatch.setattr(requests.Session, "post", noted)
    job_id = accepted(idle, asked(study, store=True))
    execute = with_studies(Studies(idle.service.args.pacs, 2), idle.executor.run)
    (lease,) = idle.service.store.lease("mortal", 1, 0.2)

    async def until_it_dies() -> bytes:
        async for news in execute(work_of(lease)):
            if isinstance(news, Done):
                return news.made.data  # and nobody publishes it
        raise AssertionError("nothing was made")

    lost = asyncio.run(until_it_dies())
    there = set(kept(pacs, study))
    assert kinds(pacs, study) == {"CR": 1, "SEG": 1, "OT": 1}
    assert idle.service.store.item(job_id, 0).state is State.RUNNING
    item = work_off(idle, execute, job_id)
    assert (item.state, item.losses, item.attempts) == (State.SUCCEEDED, 1, 0)
    assert idle.service.sink.get(str(item.file), str(item.sha256)) == lost
    assert set(kept(pacs, study)) == there
    assert len(posts) == 1


def test_an_item_waits_for_a_pacs_that_went_and_came_back(
    idle: Running, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = accepted(idle, asked(study))
    named = dict(idle.service.args.pacs)
    here, named["archive"] = named["archive"], named["gone"]
    asking, tries = Studies(named, 2), Counter[str]()
    fetch = asking.fetch

    async def counted(*args: Any) -> str:
        tries["fetch"] += 1
        if tries["fetch"] == 3:
            named["archive"] = here
        return await fetch(*args)

    monkeypatch.setattr(asking, "fetch", counted)
    item = work_off(idle, with_studies(asking, idle.executor.run), job_id)
    assert (item.state, item.attempts, item.losses) == (State.SUCCEEDED, 2, 0)


@pytest.mark.parametrize("when", ["fetched", "stored"])
def test_a_pacs_that_stays_away_fails_its_item_with_the_reason(
    idle: Running, study: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job_id = accepted(idle, asked(study, store=True))
    named = dict(idle.service.args.pacs)

    async def execute(work: Work) -> Any:
        assert when == "stored", "nothing can be made of what was not fetched"
        async for news in idle.executor.run(work):
            named["archive"] = named["gone"]  # as soon as the picture is here
            yield news
        named["archive"] = idle.service.args.pacs["archive"]

    if when == "fetched":
        named["archive"] = named["gone"]
    item = work_off(idle, with_studies(Studies(named, 2), execute), job_id)
    doing = "retrieve an instance" if when == "fetched" else "search"
    assert (item.state, item.attempts, item.losses) == (State.FAILED, 3, 0)
    assert f"the PACS archive cannot be asked to {doing}" in str(item.error)
    assert study not in str(item.error) + caplog.text


def test_a_picture_that_was_deleted_fails_at_once(idle: Running, pacs: PACS, study: str) -> None:
    job_id = accepted(idle, asked(study))
    address = pacs.url.replace("/dicom-web", "")
    found = pacs.session.post(f"{address}/tools/lookup", data=study).json()
    pacs.session.delete(address + found[0]["Path"]).raise_for_status()
    execute = with_studies(Studies(idle.service.args.pacs, 2), idle.executor.run)
    item = work_off(idle, execute, job_id)
    assert (item.state, item.attempts) == (State.FAILED, 1)
    assert "it has nothing there; check that this was not deleted" in str(item.error)
