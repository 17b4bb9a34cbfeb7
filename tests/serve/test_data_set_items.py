"""How items of data sets come to those who make them: with pictures and gates, or not yet."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from gen.data.bundle import pack
from gen.errors import InvalidInput, MedphantomError
from jobs.runner import cost
from jobs.runner.items import Item
from jobs.sink import Sink
from jobs.tasks import TASKS
from jobs.tasks.data_set import DataSetSpec
from jobs.work import Failed, News, Started, Waits, Work
from serve.data_sets import DataSets, with_data_sets
from serve.taught_gates import KEPT, Taught, Teacher, with_teacher

VARY = {"operation": "vary", "strength": 0.5, "num_inference_steps": 8}


def spec_of(path: str, **fields: Any) -> DataSetSpec:
    base = {"task": "augment", "manifest": {"path": path}, "params": VARY, "model": "cxr-mini"}
    return DataSetSpec.model_validate({**base, **fields})


def work_of(spec: DataSetSpec, item: dict[str, Any]) -> Work:
    return Work("data-set", "job-1", "ann", spec.model_dump(mode="json"), {7: item})


class Maker:
    """Who makes items: remembers the work that arrives."""

    def __init__(self) -> None:
        self.work: list[Work] = []

    async def run(self, work: Work) -> AsyncIterator[News]:
        self.work.append(work)
        yield Started(7)


def told(execute: Any, work: Work) -> list[News | Waits]:
    async def listen() -> list[News | Waits]:
        return [each async for each in execute(work)]

    return asyncio.run(listen())


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """An object store with two pictures beside their manifest."""
    system = fsspec.filesystem("memory")
    lines = ["id,image,findings,prompt"]
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        system.pipe_file(f"/bucket/set/{i}.png", (tmp_path / f"{i}.png").read_bytes())
        lines.append(f"row-{i},{i}.png,Effusion,a chest")
    system.pipe_file("/bucket/set/table.csv", "\n".join(lines).encode())
    return "memory://bucket"


def test_pictures_beside_a_manifest_come_from_an_object_store(bucket: str, tmp_path: Path) -> None:
    data_sets = DataSets({"far": bucket}, tmp_path / "copies", 2)
    spec = spec_of("far:set/table.csv")
    items, _ = asyncio.run(data_sets.items(spec))
    assert [each["item"]["id"] for each in items] == ["row-0", "row-1"]
    other = DataSets({"far": bucket}, tmp_path / "another-host", 2)
    maker = Maker()
    assert told(with_data_sets(other, maker.run), work_of(spec, items[1])) == [Started(7)]
    (given,) = maker.work[0].items.values()
    assert given["files"] == {"image": (tmp_path / "1.png").read_bytes()}
    assert given["seed"] == items[1]["seed"]


def test_a_data_set_costs_what_its_items_cost_with_every_attempt(
    bucket: str, tmp_path: Path
) -> None:
    data_sets = DataSets({"far": bucket}, tmp_path / "copies", 2)
    picture = base64.b64encode((tmp_path / "0.png").read_bytes()).decode()
    task = TASKS["augment"]
    one = task.work(task.check({**VARY, "images": [picture], "prompt": "a chest"}))
    _, work = asyncio.run(data_sets.items(spec_of("far:set/table.csv", n=5)))
    assert work == pytest.approx(10 * one)
    job = spec_of("far:set/table.csv", gates={"reference": "far:set"}, max_attempts=3).as_job()
    rows = [Item("a", "a", image="0.png", prompt="a chest"), Item("b", "b", error="unreadable")]
    assert cost.work_of(job, rows) == pytest.approx(3 * one)


def test_a_store_that_is_away_makes_jobs_wait(tmp_path: Path) -> None:
    data_sets = DataSets({"far": "nowhere://bucket"}, tmp_path, 2)
    spec = spec_of("far:set")
    with pytest.raises(MedphantomError, match="the data store failed") as caught:
        asyncio.run(data_sets.items(spec))
    assert not isinstance(caught.value, InvalidInput)
    item = {"seed": 1, "item": {"id": "a", "key": "a", "image": "a.png"}}
    (news,) = told(with_data_sets(data_sets, Maker().run), work_of(spec, item))
    assert isinstance(news, Waits)
    broken = {"seed": 1, "item": {"id": "a", "key": "a", "error": "the line is no CSV"}}
    (news,) = told(with_data_sets(data_sets, Maker().run), work_of(spec, broken))
    assert news == Failed(7, "the line is no CSV", retry=False)


class Learning(Teacher):
    """Answers what a test says."""

    def __init__(self, answer: str | Exception | None) -> None:
        self.answer = answer

    def taught(self, job_id: str, gates: dict[str, Any]) -> str | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def said(self, job_id: str) -> str:
        return "images: 3 of 9"


def test_items_wait_until_gates_have_learnt(tmp_path: Path) -> None:
    spec = spec_of("far:set", gates={"reference": "far:real"})
    work, maker = work_of(spec, {"seed": 1}), Maker()
    (news,) = told(with_teacher(Learning(None), maker.run), work)
    assert isinstance(news, Waits)
    assert news.reason == "gates learn from far:real: images: 3 of 9"
    refused = Learning(InvalidInput("too few"))
    assert told(with_teacher(refused, maker.run), work) == [Failed(7, "too few", retry=False)]
    (news,) = told(with_teacher(Learning(MedphantomError("away")), maker.run), work)
    assert isinstance(news, Waits)
    assert maker.work == []
    assert told(with_teacher(Learning("ab12"), maker.run), work) == [Started(7)]
    assert maker.work[0].items == {7: {"seed": 1, "gates": "ab12"}}


def test_samplers_hold_what_gates_of_a_few_jobs_have_learnt(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path / "results"))
    taught = Taught(sink, tmp_path / "taught")
    spec = spec_of("far:set", gates={"reference": "far:real"})
    for number in range(KEPT + 3):
        data = pack({"gates.json": str(number).encode()})
        digest = hashlib.sha256(data).hexdigest()
        sink.put_upload(digest, data)
        work = asyncio.run(taught.given(work_of(spec, {"gates": digest})))
        folder = Path(work.items[7]["gates"])
        assert (folder / "gates.json").read_text() == str(number)
        assert folder.name == digest
    assert len(list((tmp_path / "taught").iterdir())) == KEPT + 1
    plain = work_of(spec_of("far:set"), {"seed": 1})
    assert asyncio.run(taught.given(plain)) == plain
