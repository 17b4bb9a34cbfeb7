import io
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from gen.data.samples import Sample, read_tar, write_tar
from gen.errors import InvalidInput

KEYS = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), unique=True, max_size=5)
FILES = st.dictionaries(st.sampled_from(["png", "mask.png", "npy"]), st.binary(max_size=600))


@given(st.data(), KEYS)
def test_what_is_written_is_read_again(tmp_path_factory, data, keys):
    samples = [Sample(key, data.draw(FILES), {"id": key, "synthetic": True}) for key in keys]
    path = tmp_path_factory.mktemp("shard") / "shard.tar"
    with path.open("wb") as stream:
        write_tar(stream, samples)
    assert list(read_tar(path)) == samples


def test_the_same_samples_are_the_same_bytes():
    written = []
    for _ in range(2):
        stream = io.BytesIO()
        write_tar(stream, [Sample("a", {"png": b"1"}, {"b": 1, "a": 2})])
        written.append(stream.getvalue())
    assert written[0] == written[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_a_shard(tmp_path):
    path = tmp_path / "shard.tar"
    with path.open("wb") as stream:
        write_tar(stream, [Sample("a-1", {"png": b"x", "mask.png": b"y"}, {"seed": 3})])
    (row,) = webdataset.WebDataset(str(path), shardshuffle=False)
    assert row["__key__"] == "a-1"
    assert (row["png"], row["mask.png"], row["json"]) == (b"x", b"y", b'{"seed": 3}')


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "x" * 101])
def test_a_key_that_is_no_name_is_refused(key):
    with pytest.raises(InvalidInput, match="key is"):
        Sample(key, {}, {})


def test_a_shard_that_was_cut_short_is_refused(tmp_path):
    path = tmp_path / "shard.tar"
    with path.open("wb") as stream:
        write_tar(stream, [Sample("a", {"png": b"x" * 5000}, {})])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InvalidInput, match="cut short"):
        list(read_tar(path))


def test_a_sample_without_its_row_is_refused(tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(InvalidInput, match="no row"):
        list(read_tar(path))
