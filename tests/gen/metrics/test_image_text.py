"""Cosines of images and prompts against hand-made vectors, and a tiny CLIP from a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPModel

from gen.errors import InvalidInput, ModelRefused
from gen.metrics.image_text import CLIP_MEAN, CLIP_STD, image_text_score, load_image_text_model
from gen.training.caption_tokenizer import train_tokenizer

PROMPTS = ["a chest x-ray of a child with pneumonia", "no acute finding"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel folder with random weights: 8 px images, 16 tokens."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(PROMPTS, folder, 650, 16)
    width = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {
        **width, "num_attention_heads": 2, "vocab_size": len(tokenizer),
        "max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {**width, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    CLIPModel(config).save_pretrained(folder)
    return folder


def unit(rows: list[list[float]]) -> np.ndarray:
    """Rows of unit length."""
    values = np.array(rows)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_images_on_their_prompts_score_one_and_others_the_cosine_between() -> None:
    vectors = unit([[1, 0], [1, 1], [0, 1]])
    score = image_text_score(vectors, vectors, ["a", "b", "c"])
    assert (score.matched.low, score.matched.high) == pytest.approx((1, 1))
    assert score.matched.value == pytest.approx(1)
    half = np.sqrt(0.5)  # the cosines between are half, half and 0
    assert score.shuffled.value == pytest.approx((half / 2 + half + half / 2) / 3)
    assert score.margin.value == pytest.approx(1 - score.shuffled.value)
    assert score.shuffled.low <= score.shuffled.value <= score.shuffled.high


def test_images_that_ignore_their_prompts_have_no_margin() -> None:
    images = unit([[1.0, 2.0]] * 4)
    texts = unit([[1, 0], [0, 1], [1, 0], [0, 1]])
    score = image_text_score(images, texts, ["a", "b", "a", "b"])
    assert score.margin.value == pytest.approx(0)
    assert score.margin.low < 0 < score.margin.high


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(lambda x: len(set(x)) > 1))
def test_the_floor_is_the_mean_over_all_pairs_of_different_prompts(chosen: list[int]) -> None:
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(len(chosen), 3)).tolist())
    texts = unit(rng.normal(size=(4, 3)).tolist())[chosen]
    prompts = [str(each) for each in chosen]
    score = image_text_score(images, texts, prompts, num_resamples=5)
    cosines = images @ texts.T
    other = np.not_equal.outer(chosen, chosen)
    assert score.shuffled.value == pytest.approx(
        np.mean([row[mask].mean() for row, mask in zip(cosines, other, strict=True)])
    )
    assert score.matched.value == pytest.approx(np.trace(cosines) / len(chosen))


def test_the_interval_is_the_standard_errors() -> None:
    rng = np.random.default_rng(0)
    texts = np.tile(np.eye(2), (500, 1))
    angles = rng.uniform(0, np.pi / 2, 1000)
    images = np.stack([np.cos(angles), np.sin(angles)], 1)
    matched = image_text_score(images, texts, ["a", "b"] * 500).matched
    error = np.sum(images * texts, axis=1).std() / np.sqrt(1000)
    assert matched.high - matched.low == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize(
    ("prompts", "message"), [(["a", "a"], "all 2 prompts are the same"), (["a"], "give as many")]
)
def test_a_floor_needs_another_prompt_and_each_image_its_own(
    prompts: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        image_text_score(np.eye(2), np.eye(2), prompts)


def test_a_clip_folder_embeds_as_transformers_does(clip: Path) -> None:
    model = load_image_text_model(clip)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    rgb = (images / 255).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    tokens = model.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    reference = CLIPModel.from_pretrained(clip, use_safetensors=True).eval()
    with torch.no_grad():
        output = reference(tokens.input_ids, (rgb - mean) / std, tokens.attention_mask)
    assert np.allclose(model.embed_images(images, batch_size=2), output.image_embeds, atol=1e-5)
    assert np.allclose(model.embed_texts(PROMPTS, batch_size=1), output.text_embeds, atol=1e-5)


def test_a_text_longer_than_the_context_is_cut(clip: Path) -> None:
    model = load_image_text_model(clip)
    long = " ".join(["pneumonia"] * 50)
    assert np.allclose(model.embed_texts([long]), model.embed_texts([f"{long} finding"]))
    assert not np.allclose(*model.embed_texts(PROMPTS))


def test_the_folders_own_normalisation_goes_before_clips(clip: Path) -> None:
    usual = load_image_text_model(clip)
    file = clip / "preprocessor_config.json"
    file.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    try:
        own = load_image_text_model(clip)
    finally:
        file.unlink()
    assert own.mean.flatten().tolist() == [0.5] * 3
    assert own.std.flatten().tolist() == [0.25] * 3
    assert usual.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)


def test_a_model_of_images_alone_or_without_its_tokenizer_is_refused(
    clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="does not embed texts and images"):
        load_image_text_model("cxr-encoder-mini")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip / name).read_bytes())
    with pytest.raises(ModelRefused, match=r"merges.txt and vocab.json missing"):
        load_image_text_model(tmp_path)
