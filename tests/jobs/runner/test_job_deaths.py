"""An item that kills its workers is found and given up; nothing else is blamed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_process import digests, write_prompts

from gen.data.samples import read_tar
from jobs.runner.deaths import FOLDER, MOST_DEATHS, Deadly, Suspicion, Watch, forgive
from jobs.runner.items import Item, read_items
from jobs.runner.ledger import note_file, tar_file
from jobs.runner.runner import Crew, run_job
from jobs.runner.spec import checked

ONE, OTHER = Item("one", "one-1"), Item("other", "other-2")


def die(out: Path, times: int, alone: Item | None = None) -> None:
    """As a worker that takes a shard and says no more."""
    for _ in range(times):
        Suspicion(out, 0).under_way(alone)


def test_items_are_made_one_at_a_time_after_some_deaths(tmp_path: Path) -> None:
    die(tmp_path, MOST_DEATHS - 1)
    assert not Suspicion(tmp_path, 0).one_at_a_time
    die(tmp_path, 1)
    assert Suspicion(tmp_path, 0).one_at_a_time
    assert not Suspicion(tmp_path, 1).one_at_a_time


def test_only_the_item_that_was_alone_is_blamed(tmp_path: Path) -> None:
    die(tmp_path, MOST_DEATHS)
    die(tmp_path, MOST_DEATHS - 1, OTHER)
    die(tmp_path, MOST_DEATHS, ONE)
    found = Suspicion(tmp_path, 0)
    found.refuse(OTHER)
    with pytest.raises(Deadly, match="its worker died 3 times"):
        found.refuse(ONE)
    assert not found.hopeless


def test_workers_that_never_come_to_an_item_are_hopeless(tmp_path: Path) -> None:
    die(tmp_path, 2 * MOST_DEATHS)
    assert Suspicion(tmp_path, 0).hopeless


def test_what_ends_with_an_error_or_well_counts_as_no_death(tmp_path: Path) -> None:
    watch = Watch(2)
    die(tmp_path, 1)
    for _ in range(2 * MOST_DEATHS):
        with pytest.raises(OSError, match="full"), watch.over(tmp_path, 0):
            raise OSError("full")
    assert not Suspicion(tmp_path, 0).one_at_a_time
    with watch.over(tmp_path, 0):
        pass
    assert list((tmp_path / FOLDER).iterdir()) == []
    forgive(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_shard_under_suspicion_is_made_alone(tmp_path: Path) -> None:
    die(tmp_path, MOST_DEATHS)
    watch, order = Watch(2), list[str]()

    def suspected() -> None:
        with watch.over(tmp_path, 0):
            order.append("suspected")

    with watch.over(tmp_path, 1), watch.over(tmp_path, 2):
        other = threading.Thread(target=suspected)
        other.start()
        other.join(0.2)
        order.append("others")
    other.join()
    assert order == ["others", "suspected"]


def test_the_others_of_its_shard_are_made_to_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = checked(
        {
            "task": "null", "model": "null", "shard_size": 4, "out": str(out),
            "manifest": {"path": str(write_prompts(tmp_path, 8))},
        }
    )  # fmt: skip
    here = Crew(workers=0, threads=1)
    run_job(spec, crew=here)
    calm, before = list(read_tar(tar_file(out, 0))), digests(out)
    note_file(out, 0).unlink()
    _, deadly, *_ = read_items(out, 0)
    die(out, MOST_DEATHS)
    die(out, MOST_DEATHS, deadly)
    report = run_job(spec, crew=here)
    assert (report["made"], report["failed"]) == (7, 1)
    (line,) = map(json.loads, (out / "errors.jsonl").read_text().splitlines())
    assert line["id"] == deadly.id
    assert "its worker died 3 times" in line["reason"]
    assert list(read_tar(tar_file(out, 0))) == [each for each in calm if each.key != deadly.key]
    assert not (out / FOLDER).exists()
    assert run_job(spec, crew=here, retry_failed=True)["made"] == 8
    assert digests(out) == before


def endless() -> Iterator[int]:
    yield 1
    threading.Event().wait()


def test_a_wait_ends_when_nobody_listens_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from jobs import vigil

    with socket.create_server(("127.0.0.1", 0)) as server:
        door = server.getsockname()
        assert vigil._opens(door)
        monkeypatch.setattr(vigil, "_doors", lambda: [door])
        monkeypatch.setattr(vigil, "LOOK_S", 0.01)
        rows = vigil.while_alive(endless())
        assert next(rows) == 1
        assert list(vigil.while_alive([1, 2])) == [1, 2]
    with pytest.raises(vigil.RayDied, match="run the job again, it goes on"):
        next(rows)


def test_what_ray_raises_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import vigil

    def failing() -> Iterator[int]:
        yield 1
        raise ConnectionError("canary")

    monkeypatch.setattr(vigil, "_doors", list)
    rows = vigil.while_alive(failing())
    assert next(rows) == 1
    with pytest.raises(vigil.RayDied) as raised:
        next(rows)
    assert "canary" not in str(raised.value)
