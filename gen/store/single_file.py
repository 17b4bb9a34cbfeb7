"""Stable Diffusion 1.x and 2.x checkpoints of one file, read offline.

Such a file has tensors in the original (CompVis, Stability) layout and no configuration, so the
configuration is read off the tensors' shapes. diffusers' own `from_single_file` renames the
tensors; the CLIP vocabulary, the same for all of them, is bundled (OpenAI CLIP, MIT licence).
"""

import gzip
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gen.errors import ModelRefused
from gen.store.weight_files import check_safetensors

Shapes = Mapping[str, list[int]]

MERGES = Path(__file__).parent / "clip_merges.txt.gz"
UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."
VAE_SCALE = 0.18215  # 1 / std of the latents; fixed in every 1.x and 2.x configuration
HEAD_WIDTH = 64  # of both text encoders, and of the U-Net's attention since 2.0


def load_checkpoint(path: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Load text_encoder, tokenizer, unet, vae and scheduler from one checked safetensors file.

    Raises:
        ModelRefused: the file is no Stable Diffusion 1.x or 2.x checkpoint, or tensors are missing.
    """
    header = check_safetensors(path)
    metadata = header.pop("__metadata__", None) or {}
    shapes = {name: entry["shape"] for name, entry in header.items()}
    _check_layout(shapes, path)
    prediction_type = _prediction_type(path, metadata, shapes)
    try:
        networks = _networks(shapes, load_file(path), dtype)
    except (LookupError, StopIteration, ValueError, RuntimeError) as error:
        raise ModelRefused(f"{path} has tensors missing or of odd shape ({error})") from error
    for name, network in networks.items():
        _check_complete(name, network, path)
    tokenizer = clip_tokenizer(pad_token="!" if _is_second(shapes) else "<|endoftext|>")
    return {**networks, "tokenizer": tokenizer, "scheduler": _scheduler(prediction_type)}


def _networks(shapes: Shapes, tensors: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Build the three networks; diffusers wants their configurations as a folder."""
    with tempfile.TemporaryDirectory() as folder:
        _write_config(Path(folder) / "unet", unet_config(shapes))
        _write_config(Path(folder) / "vae", vae_config(shapes))
        text_encoder_config(shapes).save_pretrained(Path(folder) / "text_encoder")
        options = {"config": folder, "local_files_only": True, "torch_dtype": dtype}
        return {
            "unet": UNet2DConditionModel.from_single_file(tensors, subfolder="unet", **options),
            "vae": AutoencoderKL.from_single_file(tensors, subfolder="vae", **options),
            "text_encoder": create_diffusers_clip_model_from_ldm(
                CLIPTextModel, tensors, subfolder="text_encoder", **options
            ),
        }


def _check_layout(shapes: Shapes, path: Path) -> None:
    text = CLIP + "embeddings.position_embedding.weight", OPEN_CLIP + "token_embedding.weight"
    needed = (UNET + "input_blocks.0.0.weight", VAE + "decoder.conv_in.weight")
    if not (all(name in shapes for name in needed) and any(name in shapes for name in text)):
        raise ModelRefused(
            f"{path} is not a whole Stable Diffusion 1.x or 2.x checkpoint (U-Net, autoencoder and "
            f"text encoder); give the model's diffusers folder instead"
        )


def _is_second(shapes: Shapes) -> bool:
    """Whether the text encoder is OpenCLIP's, as in Stable Diffusion 2.x."""
    return OPEN_CLIP + "token_embedding.weight" in shapes


def _prediction_type(path: Path, metadata: Mapping[str, str], shapes: Shapes) -> str:
    """What the U-Net predicts: 1.x epsilon, 2.x as told by the metadata or a .yaml beside it."""
    named = str(metadata.get("modelspec.prediction_type", ""))
    beside = path.with_suffix(".yaml")
    if not named and beside.is_file():
        named = _parameterization(beside)
    if named:
        return "v_prediction" if named.startswith("v") else "epsilon"
    if _is_second(shapes):
        raise ModelRefused(
            f"{path} does not say whether it predicts epsilon or v; put the original configuration "
            f"beside it as {beside.name} (v2-inference.yaml or v2-inference-v.yaml)"
        )
    return "epsilon"


def _parameterization(path: Path) -> str:
    try:
        return str(
            yaml.safe_load(path.read_text())["model"]["params"].get("parameterization", "eps")
        )
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"{path} is not an original Stable Diffusion configuration") from error


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """Read the U-Net's configuration off its shapes."""
    in_shape, out_shape = (shapes[UNET + n] for n in ("input_blocks.0.0.weight", "out.2.weight"))
    channels, attends, layers, level = [in_shape[0]], [False], 0, 0
    for block in range(1, _count(shapes, UNET + r"input_blocks\.(\d+)\.")):
        prefix = f"{UNET}input_blocks.{block}."
        if f"{prefix}0.op.weight" in shapes:
            level += 1
            channels.append(0)
            attends.append(False)
            continue
        channels[level] = shapes[f"{prefix}0.out_layers.3.weight"][0]
        attends[level] |= f"{prefix}1.proj_in.weight" in shapes
        layers += level == 0
    cross = next(shapes[name][1] for name in shapes if name.endswith("attn2.to_k.weight"))
    proj_in = next(shapes[name] for name in shapes if name.endswith("1.proj_in.weight"))
    kinds = ["CrossAttn" if attend else "" for attend in attends]
    heads: int | list[int] = (
        [width // HEAD_WIDTH for width in channels] if _is_second(shapes) else 8
    )
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": in_shape[1],
        "out_channels": out_shape[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "cross_attention_dim": cross,
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "use_linear_projection": len(proj_in) == 2,
        "sample_size": 64,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Read the autoencoder's configuration off its shapes."""
    levels = _count(shapes, VAE + r"encoder\.down\.(\d+)\.")
    encoder = f"{VAE}encoder.down"
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes[f"{VAE}encoder.conv_in.weight"][1],
        "out_channels": shapes[f"{VAE}decoder.conv_out.weight"][0],
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"{encoder}.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ],
        "layers_per_block": _count(shapes, VAE + r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": VAE_SCALE,
    }


def text_encoder_config(shapes: Shapes) -> CLIPTextConfig:
    """Read the text encoder's configuration off its shapes."""
    if _is_second(shapes):
        vocabulary, width = shapes[OPEN_CLIP + "token_embedding.weight"]
        length = shapes[OPEN_CLIP + "positional_embedding"][0]
        inner = shapes[OPEN_CLIP + "transformer.resblocks.0.mlp.c_fc.weight"][0]
        # 2.x conditions on the last layer but one, so the last is not loaded
        layers = _count(shapes, OPEN_CLIP + r"transformer\.resblocks\.(\d+)\.") - 1
    else:
        vocabulary, width = shapes[CLIP + "embeddings.token_embedding.weight"]
        length = shapes[CLIP + "embeddings.position_embedding.weight"][0]
        inner = shapes[CLIP + "encoder.layers.0.mlp.fc1.weight"][0]
        layers = _count(shapes, CLIP + r"encoder\.layers\.(\d+)\.")
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        max_position_embeddings=length,
        hidden_act="gelu" if _is_second(shapes) else "quick_gelu",
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the highest number that `pattern` finds in a tensor's name."""
    numbers = (re.match(pattern, name) for name in shapes)
    return max((int(number[1]) for number in numbers if number), default=-1) + 1


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))


def _check_complete(name: str, network: torch.nn.Module, path: Path) -> None:
    missing = [key for key, tensor in network.named_parameters() if tensor.is_meta]
    if missing:
        raise ModelRefused(
            f"{path}: {len(missing)} tensors of the {name} are missing, the first is {missing[0]}"
        )


def _scheduler(prediction_type: str) -> DDIMScheduler:
    """The noise schedule of Stable Diffusion (Rombach et al. 2022, v1-inference.yaml)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """The tokenizer of OpenAI's CLIP; Stable Diffusion 2.x pads with "!" instead."""
    merges = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    alphabet = _byte_alphabet()
    words = (
        *alphabet,
        *(f"{letter}</w>" for letter in alphabet),
        *("".join(m.split()) for m in merges),
    )
    vocabulary = {word: i for i, word in enumerate((*words, "<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(merge.split()) for merge in merges],
        pad_token=pad_token,
        model_max_length=77,
    )


def _byte_alphabet() -> list[str]:
    """One visible letter for each byte, in the order of GPT-2's and CLIP's vocabularies."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
