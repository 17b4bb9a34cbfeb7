"""The loop's formulas, and runs that were killed and started again."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from gen.errors import InvalidInput
from gen.training.autoencoder import AutoencoderConfig, train_autoencoder
from gen.training.loop import (
    LoopConfig,
    StepInfo,
    Trained,
    descend,
    learning_rate_factor,
    load_checkpoint,
    make_optimizer,
    save_checkpoint,
    update_ema,
)
from gen.training.ssl_encoder import SSLEncoderConfig, train_ssl_encoder
from gen.training.text_to_image import TextToImageConfig, train_text_to_image


class KilledError(Exception):
    """What stops a run here."""


def small(kind: str, data: Path, output: Path) -> tuple[Callable[..., Path], Any]:
    """A recipe with a config of four steps and a checkpoint every second."""
    common = {
        "data": data,
        "output": output,
        "num_steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "num_warmup_steps": 1,
        "checkpoint_every": 2,
        "sample_every": 4,
        "image_size": 32,
    }
    if kind == "autoencoder":
        tiny = {"block_size": 4, "context_channels": 8, "refine_channels": 8, "crop_size": 32}
        gan = {"adversarial_weight": 0.1, "spectral_weight": 0.1, "architecture": "block"}
        return train_autoencoder, AutoencoderConfig(**common, **tiny, **gan)
    if kind == "ssl":
        return train_ssl_encoder, SSLEncoderConfig(
            **common, widths=(8, 16), feature_dim=8, projection_dim=16
        )
    vae = AutoencoderConfig(
        **{**common, "output": output / "first", "num_steps": 1},
        block_out_channels=(16, 16, 16), crop_size=32,
    )  # fmt: skip
    folder = output / "first" / "vae"
    if not folder.exists():
        train_autoencoder(vae, lambda _: None)
    text = {"text_hidden_size": 48, "text_num_layers": 1, "vocab_size": 600}
    unet = {"block_out_channels": (16, 32), "layers_per_block": 1}
    return train_text_to_image, TextToImageConfig(**common, **text, **unet, autoencoder=folder)


def losses_of(kind: str, data: Path, output: Path, kill_at: int = 0) -> list[dict[str, float]]:
    """Train to the end, or until killed."""
    seen: list[dict[str, float]] = []

    def report(info: StepInfo) -> None:
        seen.append(info.losses)
        if info.step == kill_at:
            raise KilledError

    recipe, config = small(kind, data, output)
    try:
        recipe(config, report)
    except KilledError:
        assert len(seen) == kill_at
    return seen


@pytest.mark.parametrize("kind", ["autoencoder", "ssl", "text-to-image"])
def test_a_killed_run_follows_the_same_curve(kind: str, radiographs: Path, tmp_path: Path) -> None:
    whole = losses_of(kind, radiographs, tmp_path / "whole")
    if kind == "text-to-image":  # learning a tokenizer breaks ties at random
        shutil.copytree(tmp_path / "whole" / "tokenizer", tmp_path / "killed" / "tokenizer")
    first = losses_of(kind, radiographs, tmp_path / "killed", kill_at=3)  # it saved step 2
    assert first[:2] == whole[:2]
    # whatever the first process left behind of its random numbers is gone in the next
    torch.manual_seed(99)
    rest = losses_of(kind, radiographs, tmp_path / "killed")
    assert len(rest) == 2
    for expected, got in zip(whole[2:], rest, strict=True):
        assert got == pytest.approx(expected, rel=1e-4)
    ends = [tmp_path / name / "checkpoints" / "step-0000004" for name in ("whole", "killed")]
    for file in ends[0].glob("*.safetensors"):
        first, second = load_file(file), load_file(ends[1] / file.name)
        assert all(torch.allclose(first[key], second[key], atol=1e-5) for key in first)
    assert list((tmp_path / "whole" / "samples").glob("*.png"))


def test_the_rate_warms_up_and_falls_to_a_twentieth() -> None:
    assert learning_rate_factor(0, 10, 110) == pytest.approx(0.1)
    assert learning_rate_factor(10, 10, 110) == pytest.approx(1)
    assert learning_rate_factor(60, 10, 110) == pytest.approx(0.05 + 0.95 / 2)
    assert learning_rate_factor(110, 10, 110) == pytest.approx(0.05)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (10_000, 0.9)])
def test_the_average_moves_by_one_minus_its_decay(step: int, decay: float) -> None:
    average, current = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(average.weight, 2.0)
    nn.init.constant_(current.weight, 5.0)
    update_ema(average, current, 0.9, step)
    assert average.weight.item() == pytest.approx(decay * 2 + (1 - decay) * 5)


def test_a_torn_checkpoint_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(2, 1)
    part = {"x": Trained(module, torch.optim.AdamW(module.parameters()))}
    save_checkpoint(tmp_path, part, 5)
    kept = module.weight.detach().clone()
    nn.init.zeros_(module.weight)

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("gen.training.loop.os.replace", fail)
    with pytest.raises(OSError, match="full"):
        save_checkpoint(tmp_path, part, 6)
    assert load_checkpoint(tmp_path, part) == 5
    assert torch.equal(module.weight, kept)


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    part = {"x": Trained(module, torch.optim.AdamW(module.parameters()))}
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, part, step)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-0000002", "step-0000003"]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = LoopConfig(
        data=tmp_path, output=tmp_path, num_steps=1, batch_size=1, learning_rate=0.5
    )
    module = nn.Linear(1, 1)
    part = Trained(module, make_optimizer(module, config))
    with pytest.raises(InvalidInput, match=r"nan at step 7; lower learning_rate \(0.5\)"):
        descend(Accelerator(), part, module.weight.sum() * math.nan, config, 7)
