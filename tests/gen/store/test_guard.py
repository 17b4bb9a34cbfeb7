"""What a model may not hold is refused before a weight is read, and nothing in it runs."""

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gen.errors import ModelRefused
from gen.store import guard, loading
from gen.store.guard import check_folder
from gen.store.loading import load_components
from gen.store.weight_files import check_safetensors

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Payload:
    """A pickle of this runs a shell command when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


@pytest.fixture(autouse=True)
def no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refusal here must come before the libraries see the folder."""

    def fail(*arguments: object) -> None:
        raise AssertionError("a component was loaded")

    monkeypatch.setattr(loading, "_load", fail)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "unet.ckpt"])
def test_a_pickle_in_place_of_weights_is_refused_and_not_run(tiny_model: Path, name: str) -> None:
    witness = tiny_model.parent / "ran"
    (tiny_model / WEIGHTS).unlink()
    (tiny_model / "unet" / name).write_bytes(pickle.dumps(Payload(witness)))
    with pytest.raises(ModelRefused, match="is a pickle, which can run code"):
        load_components(tiny_model)
    assert not witness.exists()


def test_a_pickle_beside_safetensors_is_left_alone(tiny_model: Path) -> None:
    (tiny_model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert len(check_folder(tiny_model, None)) == 5


@pytest.mark.parametrize(
    "entry",
    [
        ["os", "system"],
        ["diffusers", "AutoModel"],
        ["transformers", "AutoModel"],
        ["gen.models.block_autoencoder", "Tensor"],
        ["gen.models", "AutoencoderKL"],
        ["gen.store.card", "Card"],
        ["unet.my_unet", "MyUNet"],
    ],
)
def test_a_class_that_is_not_on_the_list_is_refused(tiny_model: Path, entry: list[str]) -> None:
    edit(tiny_model / "model_index.json", unet=entry)
    with pytest.raises(ModelRefused, match="is not on the list; known are AutoencoderKL"):
        load_components(tiny_model)


def test_a_class_of_our_own_models_is_on_the_list(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tiny_model.parent / "models"
    models.mkdir()
    (models / "my_vae.py").write_text("class MyVAE: ...\nraise SystemExit('never imported')")
    monkeypatch.setattr(guard, "MODELS_FOLDER", models)
    edit(tiny_model / "model_index.json", vae=["gen.models.my_vae", "MyVAE"])
    parts = {part.name: (part.library, part.class_name) for part in check_folder(tiny_model, None)}
    assert parts["vae"] == ("gen.models.my_vae", "MyVAE")


@pytest.mark.parametrize("value", [["pipeline", "Mine"], "MyPipeline", None])
def test_a_custom_pipeline_class_is_refused(tiny_model: Path, value: Any) -> None:
    edit(tiny_model / "model_index.json", _class_name=value)
    with pytest.raises(ModelRefused, match="custom code or of another kind"):
        load_components(tiny_model)


@pytest.mark.parametrize("name", ["pipeline.py", "unet/model.py", "unet/lib.so"])
def test_code_in_the_folder_is_refused(tiny_model: Path, name: str) -> None:
    (tiny_model / name).write_text("raise SystemExit")
    with pytest.raises(ModelRefused, match="is code inside a model"):
        load_components(tiny_model)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("unet/config.json", {"trust_remote_code": True}),
        ("model_index.json", {"custom_pipeline": "owner/evil"}),
        ("text_encoder/config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
    ],
)
def test_a_config_that_asks_for_code_is_refused(
    tiny_model: Path, file: str, change: dict[str, Any]
) -> None:
    edit(tiny_model / file, **change)
    with pytest.raises(ModelRefused, match="asks for custom code"):
        load_components(tiny_model)


@pytest.mark.parametrize("name", ["../unet", "/etc", "a/b", "..", "Unet;x"])
def test_a_component_path_out_of_the_folder_is_refused(tiny_model: Path, name: str) -> None:
    edit(tiny_model / "model_index.json", **{name: ["diffusers", "UNet2DConditionModel"]})
    with pytest.raises(ModelRefused, match="leaves the folder"):
        load_components(tiny_model)


@pytest.mark.parametrize(
    "shard", ["../../x.safetensors", "/x.safetensors", "x.bin", "a/b.safetensors"]
)
def test_a_shard_path_out_of_the_folder_is_refused(tiny_model: Path, shard: str) -> None:
    index = tiny_model / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": shard}}))
    with pytest.raises(ModelRefused, match="is not a safetensors file beside it"):
        load_components(tiny_model)


def test_a_tokenizer_that_reads_a_file_elsewhere_is_refused(tiny_model: Path) -> None:
    edit(tiny_model / "tokenizer" / "tokenizer_config.json", vocab_file="/etc/passwd")
    with pytest.raises(ModelRefused, match="leaves the folder"):
        load_components(tiny_model)


@pytest.mark.parametrize("name", [WEIGHTS, "unet", "unet/config.json"])
def test_a_link_out_of_the_folder_is_refused(tiny_model: Path, name: str) -> None:
    outside = tiny_model.parent / "outside"
    (tiny_model / name).rename(outside)
    (tiny_model / name).symlink_to(outside)
    with pytest.raises(ModelRefused, match="is a symbolic link"):
        load_components(tiny_model)


@pytest.mark.parametrize("file", [WEIGHTS, "model_index.json", "unet/config.json"])
def test_a_file_that_differs_from_the_card_is_refused(carded_model: Path, file: str) -> None:
    content = bytearray((carded_model / file).read_bytes())
    (carded_model / file).write_bytes(content.replace(b"\n", b" ") + b" ")
    with pytest.raises(ModelRefused, match=r"but card\.json says"):
        load_components(carded_model)


def test_a_file_that_the_card_does_not_list_is_refused(carded_model: Path) -> None:
    (carded_model / "unet" / "extra.json").write_text("{}")
    with pytest.raises(ModelRefused, match=r"extra\.json is not listed in card\.json"):
        load_components(carded_model)


def test_a_file_that_the_card_lists_must_exist(carded_model: Path) -> None:
    (carded_model / WEIGHTS).unlink()
    with pytest.raises(ModelRefused, match="is missing, though"):
        load_components(carded_model)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (WEIGHTS, r"safetensors is missing"),
        ("unet/config.json", r"config\.json is missing"),
        ("scheduler/scheduler_config.json", r"scheduler_config\.json is missing"),
        ("tokenizer/tokenizer.json", r"vocab\.json missing"),
    ],
)
def test_a_missing_file_is_named(tiny_model: Path, file: str, message: str) -> None:
    (tiny_model / file).unlink()
    with pytest.raises(ModelRefused, match=message):
        load_components(tiny_model)


def test_an_autoencoder_without_its_scaling_factor_is_refused(tiny_model: Path) -> None:
    edit(tiny_model / "vae" / "config.json", scaling_factor=None)
    with pytest.raises(ModelRefused, match="no scaling_factor; add the one"):
        load_components(tiny_model)


def test_an_adapter_inside_a_component_is_refused(tiny_model: Path) -> None:
    (tiny_model / "text_encoder" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRefused, match="holds an adapter"):
        load_components(tiny_model)


def test_quantised_weights_are_refused(tiny_model: Path) -> None:
    edit(tiny_model / "unet" / "config.json", quantization_config={"quant_method": "bnb"})
    with pytest.raises(ModelRefused, match="quantised weights are not read"):
        load_components(tiny_model)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udcff"])
def test_a_malformed_config_is_refused(tiny_model: Path, text: str) -> None:
    (tiny_model / "unet" / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelRefused, match="is not valid JSON"):
        load_components(tiny_model)


@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json"])
def test_a_config_that_is_no_object_is_refused(tiny_model: Path, file: str) -> None:
    (tiny_model / file).write_text("[1]")
    with pytest.raises(ModelRefused, match="is not a JSON object"):
        load_components(tiny_model)


def with_header(path: Path, header: bytes, length: int | None = None, data: bytes = b"") -> Path:
    length = len(header) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize("length", [2**63, 101 * 1024**2, 5])
def test_a_header_longer_than_the_file_is_refused(tiny_model: Path, length: int) -> None:
    with_header(tiny_model / WEIGHTS, b"{}", length)
    with pytest.raises(ModelRefused, match=r"the header claims \d+ bytes"):
        load_components(tiny_model)


def test_a_huge_header_is_refused_even_if_the_file_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((101 * 1024**2).to_bytes(8, "little"))
        file.truncate(200 * 1024**2)  # sparse: takes no space
    with pytest.raises(ModelRefused, match="the limit is"):
        check_safetensors(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 400]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]},
        {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        None,
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"x": entry}).encode()
    path = with_header(tmp_path / "model.safetensors", header, data=bytes(8))
    with pytest.raises(ModelRefused, match="malformed header"):
        check_safetensors(path)


@pytest.mark.parametrize("metadata", [[], {"format": 1}, None])
def test_metadata_must_be_strings(tmp_path: Path, metadata: Any) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    with pytest.raises(ModelRefused, match="malformed header"):
        check_safetensors(with_header(tmp_path / "model.safetensors", header))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64))
def test_no_bytes_crash_the_header_check(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(ModelRefused):
        assert isinstance(check_safetensors(path), dict)
