"""A record survives every container and names the picture it belongs to."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from gen.data.dicom import write_dicom
from gen.data.images import write_png
from gen.data.manifest import append_metadata
from gen.data.provenance import Record, dicom_uid, software
from gen.errors import InvalidInput, UnsafeFile

RECORD = Record(
    model="cxr-mini", weight_sha256="0" * 64, prompt="Épanchement \\ pleural 胸水\n", seed=2**63,
    scheduler="dpm++", num_inference_steps=20, guidance_scale=4, height=2, width=2,
    settings={"stride": 16, "blend": 0.5, "seamless": True, "prior": None},
)  # fmt: skip
PIXELS = np.array([[0.0, 0.25], [0.5, 1.0]])


@pytest.mark.parametrize("name", ["x.png", "x.dcm", "x.json", "x.jsonl"])
def test_the_record_comes_back_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.png":
        write_png(path, PIXELS, RECORD)
    elif name == "x.dcm":
        write_dicom(path, PIXELS, RECORD)
    else:
        path.write_text(
            RECORD.to_json() if name == "x.json" else json.dumps(RECORD.to_row("x.png")) + "\n"
        )
    assert Record.from_file(path) == RECORD
    assert Record.from_file(path).record_sha256 == RECORD.record_sha256


def test_indented_json_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(RECORD.model_dump_json(indent=2))
    assert Record.from_file(tmp_path / "x.json") == RECORD


def test_a_line_is_chosen_by_index_or_file_name(tmp_path: Path) -> None:
    records = [RECORD.model_copy(update={"seed": seed}) for seed in range(3)]
    for seed in range(3):
        write_png(tmp_path / f"{seed}.png", PIXELS, records[seed])
    path = append_metadata(tmp_path, [r.to_row(f"{r.seed}.png") for r in records])
    assert Record.from_file(path, index=1) == records[1]
    assert Record.from_file(path, file_name="2.png") == records[2]
    with pytest.raises(InvalidInput, match="3 records; choose one by index or file_name"):
        Record.from_file(path)
    with pytest.raises(InvalidInput, match=r"index is 3, but .* 0 to 2"):
        Record.from_file(path, index=3)
    with pytest.raises(InvalidInput, match="index is -1"):
        Record.from_file(path, index=-1)
    with pytest.raises(InvalidInput, match=r"no line of metadata.jsonl is about it"):
        Record.from_file(path, file_name="3.png")


def test_columns_added_to_a_line_are_left_out_but_a_changed_field_is_noticed(
    tmp_path: Path,
) -> None:
    row = {**RECORD.to_row("x.png"), "label": "effusion"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert Record.from_file(tmp_path / "m.jsonl") == RECORD
    (tmp_path / "m.jsonl").write_text(json.dumps({**row, "seed": 1}))
    with pytest.raises(InvalidInput, match="changed after it was written"):
        Record.from_file(tmp_path / "m.jsonl")


def test_a_png_tells_people_and_programs_that_it_is_synthetic(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", PIXELS, RECORD)
    with Image.open(tmp_path / "x.png") as picture:
        text = picture.text
    assert text["Synthetic"] == "YES"
    assert text["Software"] == software() == RECORD.software
    assert "not of a patient" in text["Description"]
    assert json.loads(text["medphantom"])["synthetic"] is True


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xd8\xff\xe0", "carries no record"),
        (b"hello", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"[]", "JSON list"),
        (b"{}", "model: Field required"),
        (RECORD.to_json().replace('"seed"', '"sead"').encode(), "sead: Extra inputs"),
        (RECORD.to_json().replace('"synthetic":true', '"synthetic":false').encode(), "synthetic"),
    ],
)
def test_a_file_without_a_valid_record_says_why(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        Record.from_file(tmp_path / "x")


def test_an_error_never_repeats_the_prompt(tmp_path: Path) -> None:
    row = {**RECORD.model_dump(mode="json"), "prompt": "canary" * 2000}
    (tmp_path / "x.json").write_text(json.dumps(row))
    with pytest.raises(InvalidInput, match="prompt: String should have") as caught:
        Record.from_file(tmp_path / "x.json")
    assert "canary" not in str(caught.value)


def test_a_png_of_somebody_else_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.eye(3, dtype=np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(InvalidInput, match="text chunk 'medphantom' is missing"):
        Record.from_file(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnsafeFile, match="truncated or damaged"):
        Record.from_file(tmp_path / "x.png")


@pytest.mark.parametrize(
    "change",
    [{"synthetic": False}, {"seed": -1}, {"seed": 2**64}, {"guidance_scale": float("nan")},
     {"weight_sha256": "abc"}, {"model": ""}, {"extra": 1}, {"settings": {"nested": {}}}],
)  # fmt: skip
def test_a_record_that_cannot_be_true_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate({**RECORD.model_dump(), **change})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.seed = 1  # type: ignore[misc]


@given(prompt=st.text(max_size=50), seed=st.integers(0, 2**64 - 1), guidance=st.floats(-1e6, 1e6))
def test_equal_records_have_equal_bytes_and_uids_and_others_have_not(
    prompt: str, seed: int, guidance: float
) -> None:
    update = {"prompt": prompt, "seed": seed, "guidance_scale": guidance}
    try:
        record = Record.model_validate({**RECORD.model_dump(), **update})
        again = Record.model_validate_json(record.to_json())
    except ValidationError:  # lone surrogates are no text
        return
    assert again == record
    assert again.to_json() == record.to_json()
    assert record.to_json().isascii()
    uid = dicom_uid(record, "study")
    assert uid == dicom_uid(again, "study")
    assert uid.is_valid
    assert len({uid, dicom_uid(record, "series"), dicom_uid(RECORD, "study")}) == 3
