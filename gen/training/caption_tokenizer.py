"""A CLIP-format tokenizer learnt from the captions a model is trained with."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(
    captions: Iterable[str], folder: Path, vocab_size: int, max_length: int
) -> CLIPTokenizer:
    """Byte-pair encoding (Sennrich et al. 2016) with CLIP's word ends; written to `folder`."""
    tokenizer = Tokenizer(
        models.BPE(unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START, END],
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = _with_word_ends(model["vocab"], alphabet)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    result = CLIPTokenizer.from_pretrained(folder, model_max_length=max_length)
    result.save_pretrained(folder)
    return result


def _with_word_ends(vocab: dict[str, int], alphabet: list[str]) -> dict[str, int]:
    """CLIP also knows every letter at a word's end; without them rare words would be unknown."""
    vocab = dict(vocab)
    for letter in sorted(alphabet):
        vocab.setdefault(letter + "</w>", len(vocab))
    return vocab
