import pytest
from object_store import s3_server

from gen.errors import InvalidInput, NotFound, UnsafeFile
from jobs.data_stores import data_set, is_named


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "lab" / "cxr").mkdir(parents=True)
    (tmp_path / "lab" / "cxr" / "manifest.csv").write_text("file\n")
    (tmp_path / "secret").write_text("x")
    return {"lab": str(tmp_path / "lab")}


def test_a_data_set_of_a_local_store_is_read_in_place(lab, tmp_path):
    assert data_set("lab:cxr", lab, tmp_path / "copies") == tmp_path / "lab" / "cxr"
    assert data_set("lab:", lab, tmp_path / "copies") == tmp_path / "lab"
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize("reference", ["lab:../secret", "lab:cxr/../../secret"])
def test_a_path_that_leaves_its_store_is_refused(lab, tmp_path, reference):
    with pytest.raises(UnsafeFile):
        data_set(reference, lab, tmp_path)


def test_an_unknown_store_is_refused_with_those_there_are(lab, tmp_path):
    with pytest.raises(InvalidInput, match=r"store 'clinic' is not configured.*lab"):
        data_set("clinic:cxr", lab, tmp_path)
    with pytest.raises(NotFound, match="has no 'ct'"):
        data_set("lab:ct", lab, tmp_path)


@pytest.mark.parametrize("reference", ["/etc", "s3://bucket/x", "file:///etc", "http://x/y", "C:x"])
def test_places_are_no_names(lab, tmp_path, reference):
    assert not is_named(reference)
    with pytest.raises(InvalidInput, match="STORE:PATH"):
        data_set(reference, lab, tmp_path)


def test_a_remote_data_set_is_copied_once_and_again_where_it_changed(tmp_path):
    with s3_server("data") as client:
        client.put_object(Bucket="data", Key="sets/cxr/manifest.csv", Body=b"file\na.png\n")
        client.put_object(Bucket="data", Key="sets/cxr/a.png", Body=b"one")
        client.put_object(Bucket="data", Key="sets/ct/b.png", Body=b"other")
        stores = {"lab": "s3://data/sets"}
        folder = data_set("lab:cxr", stores, tmp_path)
        assert (folder / "a.png").read_bytes() == b"one"
        assert not list(tmp_path.rglob("b.png"))
        before = (folder / "manifest.csv").stat().st_mtime_ns
        client.put_object(Bucket="data", Key="sets/cxr/a.png", Body=b"two")
        data_set("lab:cxr", stores, tmp_path)
        assert (folder / "a.png").read_bytes() == b"two"
        assert (folder / "manifest.csv").stat().st_mtime_ns == before
        with pytest.raises(NotFound):
            data_set("lab:mri", stores, tmp_path)
