"""LoRA adapters change exactly what they were trained to change."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from gen.errors import ModelRefused
from gen.store.loading import load_components

RANK, ALPHA = 2, 6


def lora_tensors(network: Any) -> tuple[dict[str, Tensor], LoraConfig]:
    """Adapt every query projection of `network` with random weights."""
    name = "to_q" if "UNet" in type(network).__name__ else "q_proj"
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=[name])
    network.add_adapter(config)
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.lora_B["default"].weight.data.normal_()
    return get_peft_model_state_dict(network, adapter_name="default"), config


def answer(components: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        text = components["text_encoder"](torch.tensor([[1, 2, 3]])).last_hidden_state
        return components["unet"](latents, torch.tensor(5), text).sample


def diffusers_adapter(model: Path, folder: Path) -> Tensor:
    """Write an adapter of both networks as diffusers does; return what the adapted model says."""
    adapted = load_components(model)
    unet, unet_config = lora_tensors(adapted["unet"])
    text, text_config = lora_tensors(adapted["text_encoder"])
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=unet,
        text_encoder_lora_layers=text,
        unet_lora_adapter_metadata=unet_config.to_dict(),
        text_encoder_lora_adapter_metadata=text_config.to_dict(),
    )
    return answer(adapted)


def test_a_diffusers_adapter_acts_on_both_networks(saved_model: Path, tmp_path: Path) -> None:
    expected = diffusers_adapter(saved_model, tmp_path)
    assert not torch.allclose(answer(load_components(saved_model)), expected, atol=1e-4)
    adapted = load_components(saved_model, lora=tmp_path)
    torch.testing.assert_close(answer(adapted), expected)


def test_an_adapter_file_acts_like_its_folder(saved_model: Path, tmp_path: Path) -> None:
    expected = diffusers_adapter(saved_model, tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    torch.testing.assert_close(answer(load_components(saved_model, lora=path)), expected)


@pytest.mark.parametrize("target", ["unet", "text_encoder"])
def test_a_peft_adapter_acts_on_the_network_it_was_made_for(
    saved_model: Path, tmp_path: Path, target: str
) -> None:
    adapted = load_components(saved_model)
    tensors, config = lora_tensors(adapted[target])
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, tmp_path / "adapter_model.safetensors")
    config.save_pretrained(tmp_path)
    loaded = load_components(saved_model, lora=tmp_path)
    torch.testing.assert_close(answer(loaded), answer(adapted))


def test_a_pickled_adapter_is_refused(saved_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelRefused, match="read from safetensors only"):
        load_components(saved_model, lora=tmp_path)


def test_an_adapter_of_another_model_is_refused(saved_model: Path, tmp_path: Path) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(2, 99),
        f"{layer}.lora_B.weight": torch.ones(99, 2),
    }
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ModelRefused, match="does not fit the unet"):
        load_components(saved_model, lora=tmp_path)


def test_a_pattern_that_could_hang_the_matcher_is_refused(
    saved_model: Path, tmp_path: Path
) -> None:
    diffusers_adapter(saved_model, tmp_path)
    settings = json.dumps({"unet.r": 2, "unet.rank_pattern": {"(a+)+$": 4}})
    tensors = {"unet.x.lora_A.weight": torch.ones(2, 2)}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": settings})
    with pytest.raises(ModelRefused, match="not a layer's name"):
        load_components(saved_model, lora=tmp_path)


def test_a_model_is_not_an_adapter_and_an_adapter_not_a_model(
    saved_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match="is a pipeline, not a LoRA adapter"):
        load_components(saved_model, lora=saved_model)
    diffusers_adapter(saved_model, tmp_path)
    with pytest.raises(ModelRefused, match="load its base model with lora="):
        load_components(tmp_path)
