"""A checked model loads to the weights that were saved, and inconsistent models are refused."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from gen.errors import ModelRefused
from gen.store.loading import load_components

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_every_component_loads_and_the_ignored_ones_do_not(carded_model: Path) -> None:
    components = load_components(carded_model)
    assert {name: type(part).__name__ for name, part in components.items()} == {
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "scheduler": "DDIMScheduler",
    }
    assert not any(components[name].training for name in ("unet", "vae", "text_encoder"))


def test_the_loaded_weights_are_the_saved_ones(saved_model: Path) -> None:
    loaded = load_components(saved_model)["unet"].state_dict()
    for name, tensor in load_file(saved_model / WEIGHTS).items():
        assert torch.equal(loaded[name], tensor)


def test_the_loaded_tokenizer_and_text_encoder_work_together(saved_model: Path) -> None:
    components = load_components(saved_model)
    ids = components["tokenizer"]("abc", return_tensors="pt").input_ids
    assert components["text_encoder"](ids).last_hidden_state.shape == (1, ids.shape[1], 16)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
def test_networks_have_the_asked_dtype_whatever_the_files_hold(
    tiny_model: Path, dtype: torch.dtype | None
) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(tiny_model / WEIGHTS).items()}
    save_file(halves, tiny_model / WEIGHTS, metadata={"format": "pt"})
    components = load_components(tiny_model, torch_dtype=dtype)
    for name in ("unet", "vae", "text_encoder"):
        assert {p.dtype for p in components[name].parameters()} == {dtype or torch.float32}


def test_half_precision_files_are_found_where_only_they_exist(tiny_model: Path) -> None:
    (tiny_model / WEIGHTS).rename(tiny_model / WEIGHTS.replace(".safe", ".fp16.safe"))
    assert isinstance(load_components(tiny_model)["unet"], UNet2DConditionModel)


def test_sharded_weights_load(tiny_model: Path) -> None:
    unet = load_components(tiny_model)["unet"]
    (tiny_model / WEIGHTS).unlink()
    unet.save_pretrained(tiny_model / "unet", max_shard_size="50KB")
    assert len(list((tiny_model / "unet").glob("*-of-*.safetensors"))) > 1
    again = load_components(tiny_model)["unet"].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in unet.state_dict().items())


def test_a_text_encoder_of_another_width_is_refused(tiny_model: Path) -> None:
    unet = UNet2DConditionModel.from_config(
        {**load_components(tiny_model)["unet"].config, "cross_attention_dim": 24}
    )
    unet.save_pretrained(tiny_model / "unet")
    with pytest.raises(ModelRefused, match=r"hidden size is 16, but .* cross_attention_dim is 24"):
        load_components(tiny_model)


def test_missing_tensors_are_refused_instead_of_drawn_at_random(tiny_model: Path) -> None:
    tensors = load_file(tiny_model / WEIGHTS)
    del tensors["conv_in.weight"]
    save_file(tensors, tiny_model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"conv_in\.weight"):
        load_components(tiny_model)


def test_missing_tensors_of_the_text_encoder_are_refused_too(tiny_model: Path) -> None:
    path = tiny_model / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if name.endswith("fc1.weight")))
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match="tensors do not match"):
        load_components(tiny_model)


def test_a_config_of_another_shape_is_refused(tiny_model: Path) -> None:
    path = tiny_model / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 9}))
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        load_components(tiny_model)


def test_the_folder_of_one_network_loads_as_model(tmp_path: Path) -> None:
    network = AutoencoderTiny(
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        num_encoder_blocks=(1,),
        num_decoder_blocks=(1,),
    )
    network.save_pretrained(tmp_path)
    (loaded,) = load_components(tmp_path).items()
    assert loaded[0] == "model"
    assert isinstance(loaded[1], AutoencoderTiny)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelRefused, match="unknown"):
        load_components("no-such-model")
