"""A checkpoint in the original Stable Diffusion layout loads to the same networks, offline."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from gen.errors import ModelRefused
from gen.store.loading import load_components
from gen.store.single_file import clip_tokenizer

LAYERS = 2
LEVELS = 2
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def original_unet_name(name: str) -> str:
    for new, old in UNET_ENDS.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        block = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{block}.{resnet_part(match[3])}"
    side, level, kind, layer, rest = re.match(  # type: ignore[union-attr]
        r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name
    ).groups()
    first = int(level) * (LAYERS + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + LAYERS + 1}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":  # behind the attention where the level has one
        return f"output_blocks.{first + LAYERS}.{2 if level != '0' else 1}.{rest}"
    block = first + int(layer) + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}." + (
        f"1.{rest}" if kind == "attentions" else f"0.{resnet_part(rest)}"
    )


def resnet_part(rest: str) -> str:
    head, _, tail = rest.partition(".")
    return f"{RESNET.get(head, head)}.{tail}"


def original_vae(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if ".attentions.0." in name:
        for new, old in VAE_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
        if tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{LEVELS - 1 - int(m[1])}", name)
    for new, old in (
        (r"down_blocks\.", "down."),
        (r"(?<!mid_block\.)(?<!mid\.)\bresnets\.", "block."),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"(down|up)samplers\.0\.", r"\1sample."),
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
    ):
        name = re.sub(new, old, name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    return name, tensor


def original_open_clip(network: CLIPTextModel) -> dict[str, Tensor]:
    state = {name.removeprefix("text_model."): t for name, t in network.state_dict().items()}
    tensors = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    layers = network.config.num_hidden_layers
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [state[f"{old}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            tensors[f"{new}attn.in_proj_{kind}"] = torch.cat(parts)
            for ours, theirs in OPEN_CLIP.items():
                tensors[f"{new}{theirs}.{kind}"] = state[f"{old}{ours}.{kind}"]
    # the last layer, which 2.x does not use
    copies = {n.replace(f".{layers - 1}.", f".{layers}."): t for n, t in tensors.items()}
    return {f"cond_stage_model.model.{n}": t.clone() for n, t in {**copies, **tensors}.items()}


def networks(second: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(64, 128) if second else (32, 64),
        layers_per_block=LAYERS,
        attention_head_dim=(1, 2) if second else 8,
        cross_attention_dim=64,
        use_linear_projection=second,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
    )
    config = CLIPTextConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=23 if second else 2,
        num_attention_heads=1,
        hidden_act="gelu" if second else "quick_gelu",
    )
    made = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(config)}
    return {name: network.eval() for name, network in made.items()}


def original(made: dict[str, Any], second: bool) -> dict[str, Tensor]:
    """The tensors of `made` in the layout of CompVis and Stability."""
    tensors = {
        f"model.diffusion_model.{original_unet_name(name)}": tensor
        for name, tensor in made["unet"].state_dict().items()
    }
    for name, tensor in made["vae"].state_dict().items():
        name, tensor = original_vae(name, tensor)
        tensors[f"first_stage_model.{name}"] = tensor
    if second:
        tensors |= original_open_clip(made["text_encoder"])
    else:
        for name, tensor in made["text_encoder"].state_dict().items():
            name = name.removeprefix("text_model.")
            tensors[f"cond_stage_model.transformer.text_model.{name}"] = tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("second", [False, True], ids=["1.x", "2.x"])
def test_a_checkpoint_loads_to_the_networks_it_was_made_from(tmp_path: Path, second: bool) -> None:
    made = networks(second)
    path = tmp_path / "sd.safetensors"
    save_file(original(made, second), path, metadata={"modelspec.prediction_type": "epsilon"})
    loaded = load_components(path)
    assert set(loaded) == {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    ids = torch.tensor([[1, 2, 3, 4]])
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        texts = [m["text_encoder"](ids).last_hidden_state for m in (loaded, made)]
        torch.testing.assert_close(*texts)
        outputs = [m["unet"](latents, torch.tensor(3), texts[1]).sample for m in (loaded, made)]
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*[m["vae"].decode(latents).sample for m in (loaded, made)])
        image = torch.randn(1, 3, 16, 16)
        torch.testing.assert_close(
            *[m["vae"].encode(image).latent_dist.mean for m in (loaded, made)]
        )
    assert loaded["vae"].config.scaling_factor == 0.18215
    assert loaded["scheduler"].config.prediction_type == "epsilon"


@pytest.fixture(scope="module")
def second_tensors() -> dict[str, Tensor]:
    return original(networks(True), True)


def test_a_2x_checkpoint_must_say_what_it_predicts(
    second_tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "sd.safetensors"
    save_file(second_tensors, path)
    with pytest.raises(ModelRefused, match=r"epsilon or v; .* beside it as sd\.yaml"):
        load_components(path)
    path.with_suffix(".yaml").write_text(
        json.dumps({"model": {"params": {"parameterization": "v"}}})
    )
    assert load_components(path)["scheduler"].config.prediction_type == "v_prediction"


@pytest.mark.parametrize("gone", ["input_blocks.1.0.in_layers.0.bias", "attn2.to_k", "mid.block_1"])
def test_a_checkpoint_with_missing_tensors_is_refused(tmp_path: Path, gone: str) -> None:
    tensors = {n: t for n, t in original(networks(False), False).items() if gone not in n}
    save_file(tensors, tmp_path / "sd.safetensors")
    with pytest.raises(ModelRefused, match="missing"):
        load_components(tmp_path / "sd.safetensors")


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"conditioner.embedders.1.model.x": torch.ones(1)}, tmp_path / "xl.safetensors")
    with pytest.raises(ModelRefused, match="not a whole Stable Diffusion"):
        load_components(tmp_path / "xl.safetensors")


def test_the_bundled_vocabulary_is_that_of_clip() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    # ids published with OpenAI's CLIP (tests and notebooks of the original repository)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.decode(tokenizer("pleural effusion").input_ids[1:-1]) == "pleural effusion"


def test_2x_pads_with_an_exclamation_mark() -> None:
    assert clip_tokenizer(pad_token="!").pad_token_id == 0
