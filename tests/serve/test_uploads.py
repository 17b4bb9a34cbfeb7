"""Pictures of jobs: what the store has digests for, whoever makes the items gets whole."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gen.errors import MedphantomError, NotFound
from jobs.sink import Sink
from jobs.tasks import TASKS
from jobs.work import News, Started, Work
from serve.uploads import sweep, with_uploads

TASK = TASKS["large-images"]


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), "purple").save(stream, "PNG")
    return stream.getvalue()


def given_work(sink: Sink, task: str, spec: dict[str, Any]) -> list[Work]:
    """What a maker of items behind `with_uploads` is given."""
    seen: list[Work] = []

    async def execute(work: Work) -> AsyncIterator[News]:
        seen.append(work)
        yield Started(0)

    async def main() -> None:
        work = Work(task, "job-1", "owner", spec, {0: {"seed": 1}})
        assert [news async for news in with_uploads(sink, execute)(work)] == [Started(0)]

    asyncio.run(main())
    return seen


@pytest.mark.parametrize("source", ["like", "variation"])
def test_digests_become_pictures_again(tmp_path: Path, source: str) -> None:
    sink, text = Sink(str(tmp_path)), base64.b64encode(picture()).decode()
    spec = TASK.check({source: text if source == "like" else [text]})
    light, files = TASK.detach(spec)
    for digest, data in files.items():
        sink.put_upload(digest, data)
    (work,) = given_work(sink, TASK.name, light)
    assert TASK.check(work.spec) == spec


def test_a_spec_without_pictures_is_passed_on(tmp_path: Path) -> None:
    spec = {"prompt": "a chest"}
    (work,) = given_work(Sink(str(tmp_path)), "text-to-cxr", spec)
    assert work.spec == spec


def test_a_picture_that_is_gone_or_a_task_of_another_version_is_said(tmp_path: Path) -> None:
    light, _ = TASK.detach(TASK.check({"like": base64.b64encode(picture()).decode()}))
    with pytest.raises(MedphantomError, match="gone"):
        given_work(Sink(str(tmp_path)), TASK.name, light)
    with pytest.raises(NotFound, match="another version"):
        given_work(Sink(str(tmp_path)), "magic", {})


def test_pictures_are_swept_when_their_jobs_are_over(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path))
    sink.put_upload("ab" * 32, b"picture")

    async def sweep_once(ttl_s: float) -> None:
        task = asyncio.create_task(sweep(sink, ttl_s))
        await asyncio.sleep(0.2)
        task.cancel()

    asyncio.run(sweep_once(ttl_s=3600))
    assert list((tmp_path / ".uploads").iterdir())
    asyncio.run(sweep_once(ttl_s=-(10**6)))
    assert not list((tmp_path / ".uploads").iterdir())
