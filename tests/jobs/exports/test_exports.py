import io
import json
from collections import Counter

import datasets
import numpy as np
import pydicom
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import load_decathlon_datalist
from PIL import Image
from pycocotools.coco import COCO

from gen.data.images import encode_png
from gen.data.provenance import Record
from gen.data.samples import Sample, write_tar
from gen.errors import InvalidInput
from jobs.exports.coco import run_lengths
from jobs.exports.export import ExportFormat, export
from jobs.exports.webdataset import write_webdataset

BOX = np.s_[10:20, 5:25]  # of every mask


def sample(number: int, masked: bool = True) -> Sample:
    record = Record(
        task="augment",
        model="cxr-mini",
        weight_sha256="0" * 64,
        prompt="chest x-ray",
        seed=number,
        scheduler="dpm++",
        num_inference_steps=2,
        guidance_scale=1.0,
        height=48,
        width=40,
        settings={"strength": 0.5} if masked else {},
        source_sha256="1" * 64 if masked else None,
    )
    pixels = np.random.default_rng(number).random((48, 40))
    image, mask = io.BytesIO(), io.BytesIO()
    encode_png(image, pixels, record)
    shown = np.zeros((48, 40), np.uint8)
    shown[BOX] = 255
    Image.fromarray(shown).save(mask, "PNG")
    files = {"png": image.getvalue()} | ({"mask.png": mask.getvalue()} if masked else {})
    meta = {
        "id": f"row-{number}",
        "synthetic": True,
        "split": "train",
        "labels": ["Mass" if number % 2 else "Nodule"],
        "prompt": "chest x-ray",
        "seed": number,
        "operation": "insert" if masked else "synthesise",
        "model": "cxr-mini",
        "weight_sha256": "0" * 64,
        "source": f"images/{number // 2}.png" if masked else None,
        "source_sha256": "1" * 64 if masked else None,
        "group": {"sex": "F", "age_group": "adult", "view": "PA"},
        "gates": [{"gate": "copies", "passed": True, "score": 0.1}],
        "record": record.model_dump(mode="json"),
    }
    return Sample(f"sample-{number:03d}", files, meta)


@pytest.fixture
def job(tmp_path):
    """Two shards: eight samples with masks and two without."""
    folder = tmp_path / "job" / "shards"
    folder.mkdir(parents=True)
    for shard in range(2):
        numbers = range(5 * shard, 5 * shard + 5)
        path = folder / f"shard-{shard:06d}.tar"
        with path.open("wb") as stream:
            write_tar(stream, [sample(each, masked=each not in (4, 9)) for each in numbers])
        path.with_suffix(".json").write_text("{}")
    return tmp_path / "job"


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_datasets_reads_an_imagefolder(job, tmp_path):
    out = tmp_path / "out"
    assert export(job, out, ExportFormat.IMAGEFOLDER) == 10
    read = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "c"))
    assert list(read) == ["train"]
    rows = sorted(read["train"], key=lambda row: row["seed"])
    assert [row["labels"] for row in rows[:2]] == [["Nodule"], ["Mass"]]
    assert all(row["synthetic"] and row["split"] == "train" for row in rows)
    assert np.array_equal(np.asarray(rows[3]["image"]), pixels_of(sample(3).files["png"]))
    assert np.asarray(rows[3]["mask"])[BOX].all()
    assert rows[4]["mask"] is None
    assert Record.model_validate(json.loads(rows[3]["record"])).seed == 3


def test_datasets_reads_parquet(job, tmp_path):
    out = tmp_path / "out"
    export(job, out, ExportFormat.PARQUET)
    read = datasets.load_dataset(
        "parquet", data_files=str(out / "*.parquet"), cache_dir=str(tmp_path / "c")
    )["train"]
    assert len(read) == 10
    assert isinstance(read[0]["image"], Image.Image)
    assert np.array_equal(np.asarray(read[3]["image"]), pixels_of(sample(3).files["png"]))
    assert (read[4]["mask"], read[4]["source"], read[4]["sex"]) == (None, None, "F")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_shards_of_the_size_that_was_asked_for(job, tmp_path):
    size = len(sample(0).files["png"]) + len(sample(0).files["mask.png"])
    write_webdataset((sample(each) for each in range(5)), tmp_path, shard_bytes=2 * size - 500)
    shards = sorted(map(str, tmp_path.glob("train-*.tar")))
    assert len(shards) == 3
    rows = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [row["__key__"] for row in rows] == [f"sample-{each:03d}" for each in range(5)]
    assert rows[2]["json"]["labels"] == ["Nodule"]
    assert rows[2]["png"].size == rows[2]["mask.png"].size == (40, 48)


def test_monai_reads_a_datalist_whose_folds_keep_sources_together(job, tmp_path):
    out = tmp_path / "out"
    export(job, out, ExportFormat.MONAI)
    rows = load_decathlon_datalist(str(out / "datalist.json"), True, "training")
    assert len(rows) == 10
    masked = [row for row in rows if row["source"]]
    assert np.asarray(Image.open(masked[0]["label"]))[BOX].all()
    folds = Counter((row["source"], row["fold"]) for row in masked)
    assert len(folds) == len({row["source"] for row in masked})


def test_nnunet_has_a_number_for_each_label(job, tmp_path):
    out = tmp_path / "out"
    export(job, out, ExportFormat.NNUNET)
    (root,) = out.glob("Dataset*")
    said = json.loads((root / "dataset.json").read_text())
    assert said["labels"] == {"background": 0, "Mass": 1, "Nodule": 2}
    assert said["numTraining"] == len(list((root / "imagesTr").iterdir())) == 8
    for number in (1, 2):
        mask = np.asarray(Image.open(root / "labelsTr" / f"sample-{number:03d}.png"))
        assert set(np.unique(mask[BOX])) == {1 if number % 2 else 2}
        assert np.count_nonzero(mask) == 200
        assert (root / "imagesTr" / f"sample-{number:03d}_0000.png").is_file()


def test_pycocotools_reads_instances(job, tmp_path, capsys):
    out = tmp_path / "out"
    export(job, out, ExportFormat.COCO)
    coco = COCO(str(out / "annotations" / "instances_train.json"))
    assert len(coco.getImgIds()) == 10
    assert len(coco.getAnnIds()) == 8
    (one,) = coco.loadAnns(coco.getAnnIds(imgIds=[4]))
    mask = np.zeros((48, 40), bool)
    mask[BOX] = True
    assert np.array_equal(coco.annToMask(one), mask)
    assert one["bbox"] == [5, 10, 20, 10]
    assert one["area"] == 200
    assert coco.loadCats(one["category_id"])[0]["name"] == "Mass"


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_of_pycocotools(mask):
    from pycocotools import mask as tools

    rle = tools.frPyObjects({"size": list(mask.shape), "counts": run_lengths(mask)}, *mask.shape)
    assert np.array_equal(tools.decode(rle).astype(bool), mask)


def test_pydicom_reads_synthetic_objects_and_their_segmentations(job, tmp_path):
    out = tmp_path / "out"
    export(job, out, ExportFormat.DICOM)
    image = pydicom.dcmread(out / "sample-003.dcm")
    mask = pydicom.dcmread(out / "sample-003.mask.dcm")
    assert image.SyntheticData == mask.SyntheticData == "YES"
    assert np.array_equal(image.pixel_array, pixels_of(sample(3).files["png"]))
    assert mask.pixel_array[BOX].all()
    assert mask.pixel_array.sum() == 200
    assert mask.SegmentSequence[0].SegmentLabel == "Mass"
    assert image.StudyInstanceUID == mask.StudyInstanceUID
    assert "not of a patient" not in image.StudyDescription
    again = tmp_path / "again"
    export(job, again, ExportFormat.DICOM)
    files = [path.read_bytes() for path in (out / "sample-003.dcm", again / "sample-003.dcm")]
    assert files[0] == files[1]


def test_nothing_is_left_of_an_export_that_fails(tmp_path):
    folder = tmp_path / "job" / "shards"
    folder.mkdir(parents=True)
    path = folder / "shard-000000.tar"
    with path.open("wb") as stream:
        write_tar(stream, [sample(1, masked=False)])
    with pytest.raises(InvalidInput, match="no finished shard"):
        export(tmp_path / "job", tmp_path / "out", ExportFormat.COCO)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(InvalidInput, match="no sample has a mask"):
        export(tmp_path / "job", tmp_path / "out", ExportFormat.COCO)
    assert [each.name for each in tmp_path.iterdir()] == ["job"]


def test_a_folder_that_exists_is_not_written_into(job, tmp_path):
    with pytest.raises(InvalidInput, match="exists"):
        export(job, tmp_path, ExportFormat.IMAGEFOLDER)
