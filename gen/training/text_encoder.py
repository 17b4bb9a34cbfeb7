"""The text encoder that a recipe trains from scratch, and its tokenizer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gen.training.caption_tokenizer import train_tokenizer
from gen.training.loop import LoopConfig


class TextEncoderConfig(LoopConfig):
    """The text encoder's part of a recipe's config."""

    text_hidden_size: int = 192
    text_num_layers: int = 4
    max_length: int = Field(48, ge=8)
    vocab_size: int = Field(1500, ge=600)


def build_text_encoder(config: TextEncoderConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP-format text encoder, to be trained with the U-Net."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_hidden_size,
            intermediate_size=2 * config.text_hidden_size,
            num_hidden_layers=config.text_num_layers,
            num_attention_heads=max(1, config.text_hidden_size // 48),
            max_position_embeddings=config.max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=config.text_hidden_size,
        )
    )


def prepare_tokenizer(
    config: TextEncoderConfig, folder: Path, captions: Iterable[str]
) -> CLIPTokenizer:
    """The run's tokenizer: the one in `folder`, or a new one learnt from captions."""
    if (folder / "tokenizer_config.json").exists():  # written last; training anew breaks ties anew
        return CLIPTokenizer.from_pretrained(folder)
    return train_tokenizer(captions, folder, config.vocab_size, config.max_length)


def tokenize(tokenizer: Any, prompts: list[str], max_length: int) -> Tensor:
    """Token ids (N, L), padded and cut to `max_length`."""
    tokens = tokenizer(
        prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids
