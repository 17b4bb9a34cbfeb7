"""The card keeps the hash of every file and refuses what a card must not say."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gen.errors import ModelRefused
from gen.store.card import Card, combined_sha256, file_sha256, read_card, write_card

FIELDS = {
    "id": "tiny",
    "task": "encoder",
    "modality": "DX",
    "image_size": 16,
    "pixel_range": (-1.0, 1.0),
    "channels": 1,
    "licence": "Apache-2.0",
    "training_data": [{"name": "noise", "licence": "CC0-1.0", "images": 1}],
    "recipe": "none",
    "device": "cpu",
    "images_seen": 0,
    "evaluation": {"fid": 400.0, "per_view": {"PA": 1}},
    "limits": ["random weights"],
}
HASHES = st.dictionaries(st.text("abc/.", min_size=1), st.text("0123456789abcdef", min_size=64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "README.md").write_text("prose is not loaded")
    return tmp_path


def test_a_written_card_reads_back_the_same(folder: Path) -> None:
    card = write_card(folder, **FIELDS)
    assert read_card(folder) == card
    assert card.evaluation["per_view"] == {"PA": 1}


def test_the_card_hashes_what_is_loaded_and_nothing_else(folder: Path) -> None:
    card = write_card(folder, **FIELDS)
    assert set(card.weights) == {"model_index.json", "unet/model.safetensors"}
    assert card.weights["unet/model.safetensors"] == file_sha256(
        folder / "unet" / "model.safetensors"
    )


def test_a_second_card_of_the_same_files_has_the_same_hash(folder: Path) -> None:
    assert write_card(folder, **FIELDS).weight_sha256 == write_card(folder, **FIELDS).weight_sha256


@given(HASHES)
def test_the_combined_hash_does_not_depend_on_the_order(hashes: dict[str, str]) -> None:
    assert combined_sha256(hashes) == combined_sha256(dict(reversed(hashes.items())))


@given(HASHES.filter(bool))
def test_the_combined_hash_changes_with_any_file(hashes: dict[str, str]) -> None:
    path = next(iter(hashes))
    assert combined_sha256(hashes) != combined_sha256({**hashes, path: "f" + hashes[path]})
    assert combined_sha256(hashes) != combined_sha256({**hashes, path + "2": hashes[path]})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.json", "a/../../x.json", "a\\..\\x"])
def test_a_card_may_not_name_files_outside_its_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="leaves the model's folder"):
        Card(**FIELDS, weights={path: "0" * 64})


def test_a_card_may_not_claim_diagnostic_use() -> None:
    with pytest.raises(ValidationError, match="not_for_diagnosis"):
        Card(**FIELDS, weights={}, not_for_diagnosis=False)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({**FIELDS, "weights": {}, "extra": 1})])
def test_an_invalid_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ModelRefused, match="not a valid model card"):
        read_card(tmp_path)


def test_a_folder_without_a_card_has_none(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
