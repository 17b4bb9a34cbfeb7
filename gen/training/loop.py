"""The loop every recipe shares: resumable steps, EMA, devices and precision, progress.

A step is a pure function of (weights, seed, step number): its batch and its noise come from
`step_generator`, so a run that was killed and started again follows the same curve.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen.errors import InvalidInput


class LoopConfig(BaseModel):
    """What every recipe's config has."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: Path = Field(description="Folder with manifest.csv")
    output: Path = Field(description="Folder for checkpoints, samples and the finished model")
    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    num_warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = 0
    mixed_precision: str = Field("no", pattern="^(no|bf16|fp16)$")
    checkpoint_every: int = Field(500, ge=1)
    sample_every: int = Field(500, ge=1)


@dataclass(frozen=True)
class StepInfo:
    """One report: step of num_steps, the losses, images/s since the start, seconds left."""

    step: int
    num_steps: int
    losses: dict[str, float]
    images_per_second: float
    eta_s: float


Report = Callable[[StepInfo], None]


@dataclass
class Trained:
    """A network, its optimizer and, if it has one, its exponential moving average."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: nn.Module | None = None


def step_generator(seed: int, step: int, process_index: int = 0) -> torch.Generator:
    """The only randomness of a step, on the CPU."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4_099 + process_index)


def learning_rate_factor(step: int, num_warmup_steps: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine to 5 %."""
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    done = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def update_ema(ema: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """ema <- d ema + (1 - d) module, with d warming up as (1 + step) / (10 + step)."""
    decay = min(decay, (1 + step) / (10 + step))
    for average, current in zip(ema.parameters(), module.parameters(), strict=True):
        average.lerp_(current.detach().to(average.dtype), 1 - decay)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, slots in state.items() for k, v in slots.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(folder: Path, trained: Mapping[str, Trained], step: int) -> None:
    """Write everything beside the last checkpoint, then point to it: never a torn one."""
    target = folder / f"step-{step:07d}"
    target.mkdir(parents=True, exist_ok=True)
    for name, part in trained.items():
        module = extract_model_from_parallel(part.module)
        save_file(_contiguous(module.state_dict()), target / f"{name}.safetensors")
        moments = _contiguous(_optimizer_tensors(part.optimizer))
        save_file(moments, target / f"{name}.optimizer.safetensors")
        if part.ema is not None:
            save_file(_contiguous(part.ema.state_dict()), target / f"{name}.ema.safetensors")
    pointer = folder / "latest.json.part"
    pointer.write_text(json.dumps({"step": step, "folder": target.name}))
    os.replace(pointer, folder / "latest.json")
    for old in sorted(folder.glob("step-*"))[:-2]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def load_checkpoint(folder: Path, trained: Mapping[str, Trained]) -> int:
    """Restore the newest checkpoint in place; the number of steps it had done, 0 without one."""
    pointer = folder / "latest.json"
    if not pointer.exists():
        return 0
    latest = json.loads(pointer.read_text())
    source = folder / latest["folder"]
    for name, part in trained.items():
        module = extract_model_from_parallel(part.module)
        module.load_state_dict(load_file(source / f"{name}.safetensors"))
        _restore_optimizer(part.optimizer, load_file(source / f"{name}.optimizer.safetensors"))
        if part.ema is not None:
            part.ema.load_state_dict(load_file(source / f"{name}.ema.safetensors"))
    return int(latest["step"])


def make_optimizer(
    module: nn.Module, config: LoopConfig, rate_factor: float = 1.0, beta1: float = 0.9
) -> torch.optim.AdamW:
    """AdamW over what is trainable, beta2 0.99, `rate_factor` times the config's rate at most."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    rate = config.learning_rate * rate_factor
    groups = [{"params": trainable, "initial_lr": rate}]
    return torch.optim.AdamW(groups, rate, betas=(beta1, 0.99), weight_decay=config.weight_decay)


def descend(
    accelerator: Accelerator, trained: Trained, loss: Tensor, config: LoopConfig, step: int
) -> None:
    """One optimizer step on `loss` and one of the moving average.

    Several processes average their gradients here, since recipes call their networks past the
    wrapper that would.
    """
    if not torch.isfinite(loss):
        raise InvalidInput(
            f"the loss is {loss.item()} at step {step}; lower learning_rate"
            f" ({config.learning_rate}) or set mixed_precision to 'no'"
        )
    factor = learning_rate_factor(step, config.num_warmup_steps, config.num_steps)
    for group in trained.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        for parameter in trained.module.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
    accelerator.clip_grad_norm_(trained.module.parameters(), config.max_grad_norm)
    trained.optimizer.step()
    trained.optimizer.zero_grad(set_to_none=True)
    if trained.ema is not None:
        update_ema(trained.ema, accelerator.unwrap_model(trained.module), config.ema_decay, step)


def run_loop(
    config: LoopConfig,
    accelerator: Accelerator,
    trained: Mapping[str, Trained],
    step: Callable[[int, torch.Generator], dict[str, float]],
    sample: Callable[[Path], Any],
    report: Report,
) -> None:
    """Call `step` until `config.num_steps` are done, from the newest checkpoint on.

    `sample` draws a picture to the path it is given every `config.sample_every` steps.
    """
    checkpoints = config.output / "checkpoints"
    first = load_checkpoint(checkpoints, trained)
    started = time.monotonic()
    for number in range(first, config.num_steps):
        losses = step(number, step_generator(config.seed, number, accelerator.process_index))
        done = number + 1
        rate = (done - first) / (time.monotonic() - started)
        images = rate * config.batch_size * accelerator.num_processes
        report(StepInfo(done, config.num_steps, losses, images, (config.num_steps - done) / rate))
        last = done == config.num_steps
        if accelerator.is_main_process and (done % config.sample_every == 0 or last):
            (config.output / "samples").mkdir(parents=True, exist_ok=True)
            sample(config.output / "samples" / f"step-{done:07d}.png")
        if accelerator.is_main_process and (done % config.checkpoint_every == 0 or last):
            save_checkpoint(checkpoints, trained, done)
