"""A timm folder chooses among the architectures and arguments of a list, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from gen.errors import ModelRefused
from gen.store import loading
from gen.store.loading import load_components

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_for_hf(
        timm.create_model(NAME, num_classes=0, **SMALL), tmp_path / "vit", safe_serialization=True
    )
    return tmp_path / "vit"


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refusal must come before timm sees the folder."""

    def fail(*arguments: object) -> None:
        raise AssertionError("a component was loaded")

    monkeypatch.setattr(loading, "_load", fail)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_network_is_loaded_in_the_precision_that_is_asked_for(folder: Path) -> None:
    for dtype in (None, torch.float16):
        network = load_components(folder, torch_dtype=dtype)["model"]
        assert {each.dtype for each in network.parameters()} == {dtype or torch.float32}
        assert {each.device.type for each in network.parameters()} == {"cpu"}
        assert not network.training


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    "architecture",
    ["hf-hub:somebody/model", "local-dir:/tmp/model", "resnet50", "system", ["vit_tiny"], None, 3],
)
def test_an_architecture_that_is_not_on_the_list_is_refused(
    folder: Path, architecture: Any
) -> None:
    edit(folder, architecture=architecture)
    with pytest.raises(ModelRefused, match="is not on the list; known are vit_base"):
        load_components(folder)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    "argument",
    [
        {"pretrained": True},
        {"checkpoint_path": "/tmp/model.pth"},
        {"pretrained_cfg": {"file": "/tmp/model.pth"}},
        {"embed_layer": "os.system"},
        {"mlp_layer": "os.system"},
        {"act_layer": ["silu"]},
        {"depth": 10**9},
        {"embed_dim": -1},
        {"img_size": 0},
        {"mlp_ratio": 1e9},
        {"init_values": "1"},
        {"in_chans": 4},
        {"global_pool": "map"},
    ],
)
def test_an_argument_that_is_not_on_the_list_is_refused(
    folder: Path, argument: dict[str, Any]
) -> None:
    edit(folder, model_args=SMALL | argument)
    with pytest.raises(ModelRefused, match=f"model_args has {next(iter(argument))} = "):
        load_components(folder)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_arguments_are_an_object(folder: Path) -> None:
    edit(folder, model_args=["pretrained"])
    with pytest.raises(ModelRefused, match="must be an object"):
        load_components(folder)


def test_where_weights_could_be_fetched_from_is_not_read(folder: Path) -> None:
    elsewhere = {"url": "http://127.0.0.1:9/model.pth", "hf_hub_id": "somebody/model"}
    edit(folder, pretrained_cfg=elsewhere | {"file": "/nowhere/model.pth", "custom_load": True})
    assert load_components(folder)["model"].embed_dim == 16


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_pickle_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match="is a pickle, which can run code"):
        load_components(folder)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_code_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "vit.py").write_text("raise SystemExit")
    with pytest.raises(ModelRefused, match="is code inside a model"):
        load_components(folder)


@pytest.mark.parametrize(
    "arguments", [{"depth": 2}, {"embed_dim": 8192, "depth": 100}, {"num_heads": 3}]
)
def test_weights_that_do_not_fit_are_refused_without_taking_the_memory_asked_for(
    folder: Path, arguments: dict[str, int]
) -> None:
    """100 layers of 8192 would take 320 GB."""
    edit(folder, model_args=SMALL | arguments)
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        load_components(folder)


def test_tensors_of_no_use_are_refused_but_for_the_classifier(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"head.weight": torch.zeros(5, 16), "head.bias": torch.zeros(5)}, path)
    assert load_components(folder)["model"].num_classes == 0
    save_file(tensors | {"neck.weight": torch.zeros(5, 16)}, path)
    with pytest.raises(ModelRefused, match="neck"):
        load_components(folder)
