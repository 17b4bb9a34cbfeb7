"""Results in a folder and in an object store: whole or not there, and noticed when changed."""

import errno
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import s3_server, use_endpoint

from gen.errors import InvalidInput, MedphantomError
from jobs.sink import Sink

DATA = b"\x89PNG" + bytes(range(256)) * 40
PNG = "image/png"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of a real S3 server."""
    with s3_server("results") as client:
        yield client


@pytest.fixture(params=["folder", "s3"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    """An empty store of either kind."""
    if request.param == "folder":
        return Sink(str(tmp_path / "results"))
    request.getfixturevalue("s3")
    return Sink(f"s3://results/{tmp_path.name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where `local` keeps its files."""
    return tmp_path / "results"


@pytest.fixture
def local(folder: Path) -> Sink:
    """An empty local store."""
    return Sink(str(folder))


def change(sink: Sink, file: str, data: bytes) -> None:
    """Write past the sink."""
    sink._fs.pipe_file(f"{sink._root}/{file}", data)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_was_put_can_be_had(sink: Sink) -> None:
    kept = sink.put("job-1", 3, DATA, PNG)
    assert (kept.sha256, kept.size) == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert sink.get(kept.file, kept.sha256) == DATA
    assert kept.file.startswith("job-1/")
    assert kept.file.endswith(".png")
    assert sink.put("job-1", 3, DATA, "application/dicom").file.endswith(".dcm")


def test_the_same_content_is_one_file_and_other_content_another(sink: Sink) -> None:
    first, second = sink.put("job", 0, DATA, PNG), sink.put("job", 0, DATA, PNG)
    assert first == second
    other = sink.put("job", 0, DATA + b"!", PNG)
    assert other.file != first.file
    assert sink.put("job", 1, DATA, PNG).file != first.file
    assert sink.put("job2", 0, DATA, PNG).file != first.file
    assert sink.get(first.file, first.sha256) == DATA


def test_changed_content_is_noticed(sink: Sink) -> None:
    kept = sink.put("job", 0, DATA, PNG)
    change(sink, kept.file, DATA[:-1])
    with pytest.raises(MedphantomError, match="was changed"):
        sink.get(kept.file, kept.sha256)
    sink.put("job", 0, DATA, PNG)  # made again, it is whole again
    assert sink.get(kept.file, kept.sha256) == DATA


def test_what_is_deleted_is_gone_and_may_be_deleted_twice(sink: Sink) -> None:
    kept = [sink.put("job", index, DATA, PNG) for index in range(3)]
    sink.delete([kept[0].file, kept[2].file])
    sink.delete([kept[0].file, "job/never-was.png"])
    for gone in (kept[0], kept[2]):
        with pytest.raises(MedphantomError, match="is gone"):
            sink.get(gone.file, gone.sha256)
    assert sink.get(kept[1].file, kept[1].sha256) == DATA


@pytest.mark.parametrize("job_id", ["../job", "a/b", "", ".", "x" * 65, "job\n", "/etc"])
def test_an_id_that_could_lead_elsewhere_is_refused(local: Sink, folder: Path, job_id: str) -> None:
    with pytest.raises(InvalidInput, match="id"):
        local.put(job_id, 0, DATA, PNG)
    assert list(folder.parent.rglob("*")) == [folder]


def test_a_crash_before_the_rename_leaves_nothing_visible(
    local: Sink, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = local.put("job", 0, DATA, PNG)

    def crash(*_: Any) -> None:
        raise OSError(errno.EIO, "the power went")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="power"):
            local.put("job", 1, DATA + b"1", PNG)
        with pytest.raises(OSError, match="power"):
            local.put("job", 0, DATA, PNG)
    assert names(folder) == [kept.file]
    assert local.get(kept.file, kept.sha256) == DATA


def test_a_full_disk_is_an_os_error_and_changes_nothing(
    local: Sink, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            local.put("job", 0, DATA, PNG)
    assert names(folder) == []
    local.put("job", 0, DATA, PNG)
    assert len(names(folder)) == 1


def test_the_last_file_takes_its_folder_along(local: Sink, folder: Path) -> None:
    kept = [local.put("job", index, DATA, PNG) for index in range(2)]
    other = local.put("other", 0, DATA, PNG)
    local.delete([kept[0].file])
    assert (folder / "job").is_dir()
    local.delete([kept[1].file])
    assert sorted(path.name for path in folder.iterdir()) == ["other"]
    assert local.get(other.file, other.sha256) == DATA


def test_objects_lie_under_the_root_that_was_given(s3: Any) -> None:
    kept = Sink("s3://results/deep/root").put("job", 0, DATA, PNG)
    answer = s3.get_object(Bucket="results", Key=f"deep/root/{kept.file}")
    with answer["Body"] as body:
        assert body.read() == DATA


def test_what_another_process_wrote_is_seen(s3: Any) -> None:
    sink, file, sha256 = Sink("s3://results"), "job/000000-0.png", hashlib.sha256(DATA).hexdigest()
    sink.delete([file])
    with pytest.raises(MedphantomError, match="gone"):
        sink.get(file, sha256)
    s3.put_object(Bucket="results", Key=file, Body=DATA)
    assert sink.get(file, sha256) == DATA
    sink.delete([file])
    assert "Contents" not in s3.list_objects_v2(Bucket="results", Prefix="job/")


def test_a_bucket_that_is_not_there_is_an_os_error(s3: Any) -> None:
    with pytest.raises(OSError, match="bucket"):
        Sink("s3://no-such-bucket/results").put("job", 0, DATA, PNG)


def test_a_store_that_is_away_is_an_os_error_to_writers_and_an_answer_to_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        use_endpoint(monkeypatch, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        sink = Sink("s3://results/away")
        with pytest.raises(OSError, match="failed with"):
            sink.put("job", 0, DATA, PNG)
        with pytest.raises(MedphantomError, match="try again later"):
            sink.get("job/000000-0.png", "0" * 64)


def test_an_upload_is_kept_by_its_hash_until_it_is_old(sink: Sink) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    assert sink.sweep_uploads(0, time.time()) == 0  # before there was any
    sink.put_upload(digest, DATA)
    sink.put_upload(digest, DATA)
    assert sink.get_upload(digest) == DATA
    now = time.time()
    assert sink.sweep_uploads(3600, now) == 0
    assert sink.sweep_uploads(3600, now + 3500) == 0
    assert sink.get_upload(digest) == DATA
    assert sink.sweep_uploads(3600, now + 3700) == 1
    with pytest.raises(MedphantomError, match="gone"):
        sink.get_upload(digest)


def test_uploads_are_not_in_the_way_of_any_job(sink: Sink) -> None:
    kept = sink.put("uploads", 0, DATA, PNG)
    sink.put_upload("ab" * 32, DATA)
    assert sink.sweep_uploads(0, time.time() + 3600) == 1
    assert sink.get(kept.file, kept.sha256) == DATA


def test_parts_of_a_slide_are_read_without_the_rest(sink: Sink) -> None:
    kept = sink.put("job-1", 0, DATA, "image/tiff")
    assert kept.file.endswith(".ome.tif")
    with sink.open(kept.file) as stream:
        stream.seek(1000)
        assert stream.read(10) == DATA[1000:1010]
    with pytest.raises(MedphantomError, match="gone"), sink.open("job-1/none.ome.tif"):
        pass
