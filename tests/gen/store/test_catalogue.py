"""An id resolves to exactly one place, or the error lists what is known."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from gen.errors import ModelRefused
from gen.store import catalogue
from gen.store.catalogue import list_models, resolve


@pytest.fixture
def embedded(carded_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as the only embedded one."""
    monkeypatch.setattr(catalogue, "WEIGHTS", carded_model.parent)
    return carded_model


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def cache_model(cache: Path, model: Path, commit: str = "0" * 40) -> Path:
    """Lay a model out as the Hugging Face cache does: links from a snapshot into blobs."""
    repository = cache / "models--owner--tiny"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    for i, path in enumerate(files):
        blob = repository / "blobs" / f"{i:064x}"
        shutil.copy(path, blob)
        link = repository / "snapshots" / commit / path.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return repository / "snapshots" / commit


def test_embedded_models_are_listed_with_their_cards(embedded: Path) -> None:
    assert [card.id for card in list_models()] == ["tiny"]


def test_every_shipped_model_passes_its_own_checks() -> None:
    for card in list_models():
        resolve(card.id).check()


def test_an_embedded_id_resolves_to_its_folder(embedded: Path) -> None:
    model = resolve("tiny")
    assert (model.path, model.kind) == (embedded, "pipeline")
    assert model.card is not None
    assert model.weight_sha256 == model.card.weight_sha256


def test_a_local_folder_needs_no_card_and_has_the_same_hash(embedded: Path) -> None:
    carded = resolve(embedded).weight_sha256
    (embedded / "card.json").unlink()
    assert resolve(embedded).card is None
    assert resolve(embedded).weight_sha256 == carded


def test_an_unknown_id_is_refused_and_the_known_are_named(embedded: Path) -> None:
    with pytest.raises(ModelRefused, match=r"'tinny' is unknown; embedded models: tiny"):
        resolve("tinny")


@pytest.mark.parametrize("name", ["../tiny/none", "/none/here", "a/b/c", "owner/..", ""])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(ModelRefused, match=r"unknown|holds no model"):
        resolve(name)


def test_a_hub_model_is_found_in_the_cache_and_its_links_pass(
    tiny_model: Path, hub_cache: Path
) -> None:
    snapshot = cache_model(hub_cache, tiny_model)
    model = resolve("owner/tiny")
    assert (model.path, model.kind) == (snapshot, "pipeline")
    model.check()


def test_a_link_out_of_the_cache_is_refused(tiny_model: Path, hub_cache: Path) -> None:
    snapshot = cache_model(hub_cache, tiny_model)
    (snapshot / "extra.json").symlink_to(tiny_model / "model_index.json")
    with pytest.raises(ModelRefused, match="symbolic link"):
        resolve("owner/tiny").check()


def test_a_hub_model_that_is_not_cached_is_refused_without_a_network(hub_cache: Path) -> None:
    with pytest.raises(ModelRefused, match="not in the Hugging Face cache; allow the download"):
        resolve("owner/tiny")


def test_a_download_asks_for_no_pickle_and_no_code(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(repo_id: str, **options: object) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tiny_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve("owner/tiny@abc", allow_download=True)
    assert asked == {
        "repo_id": "owner/tiny",
        "revision": "abc",
        "allow_patterns": ["*.json", "*.safetensors", "*.txt"],
        "local_files_only": False,
    }


def test_a_file_is_a_checkpoint_or_an_adapter_by_its_tensors(tmp_path: Path) -> None:
    save_file({"model.x": torch.ones(1)}, tmp_path / "sd.safetensors")
    save_file({"unet.x.lora_A.weight": torch.ones(1)}, tmp_path / "lora.safetensors")
    assert resolve(tmp_path / "sd.safetensors").kind == "checkpoint"
    assert resolve(tmp_path / "lora.safetensors").kind == "adapter"


@pytest.mark.parametrize("name", ["sd.ckpt", "sd.pt", "sd.bin"])
def test_a_pickled_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelRefused, match="is a pickle"):
        resolve(tmp_path / name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="holds no model"):
        resolve(tmp_path)
