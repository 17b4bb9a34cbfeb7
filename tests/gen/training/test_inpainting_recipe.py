"""The inpainting recipe: where it starts, what it is shown, and what the finished folder does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.denoising import fresh_scheduler, make_generators
from gen.engine import run
from gen.errors import InvalidInput
from gen.inpainting import blended_latents, context_of, shown
from gen.store.loading import load_components
from gen.training.captioned import call_unet, components_of, load_networks
from gen.training.dataset import read_chest_xrays
from gen.training.diffusion import diffusion_loss
from gen.training.inpainting import InpaintingConfig, train_inpainting, training_loss, widen
from gen.training.loop import StepInfo
from pipelines.text_to_cxr import TextToCXRPipeline

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TIMESTEPS = torch.tensor([10, 900])


def config_of(data: Path, base: Path | str, output: Path, **changes: Any) -> InpaintingConfig:
    """A config of two steps."""
    fields = {
        "data": data, "output": output, "base_model": str(base), "num_steps": 2, "batch_size": 3,
        "learning_rate": 1e-3, "num_warmup_steps": 0,
    }  # fmt: skip
    return InpaintingConfig.model_validate({**fields, **changes})


def left_half() -> Tensor:
    """Masks (2, 1, 8, 8) that keep the right half."""
    masks = torch.zeros(2, 1, 8, 8)
    masks[..., :4] = 1
    return masks


def test_the_first_step_is_the_base_model_whatever_is_shown(tiny_folder: Path) -> None:
    condition = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    base, widened = (load_components(tiny_folder)["unet"] for _ in range(2))
    widen(widened)
    context = context_of(LATENTS.flip(0), left_half())
    with torch.no_grad():
        expected = base(LATENTS, TIMESTEPS, condition).sample
        made = widened(torch.cat([LATENTS, context], 1), TIMESTEPS, condition).sample
    assert widened.config.in_channels == 9
    assert torch.allclose(made, expected, atol=1e-6)


def test_what_is_under_the_mask_is_not_shown(tiny_folder: Path, tmp_path: Path) -> None:
    networks = load_networks(str(tiny_folder))
    seen: list[Tensor] = []
    widen(networks.unet)
    networks.unet.conv_in.register_forward_pre_hook(lambda _, rows: seen.append(rows[0]))
    config = config_of(tmp_path, tiny_folder, tmp_path)
    ids = torch.zeros(2, 16, dtype=torch.long)
    training_loss(networks, config, LATENTS, left_half(), ids, torch.Generator().manual_seed(0))
    (rows,) = seen
    assert torch.equal(rows[:, 4:5], left_half())
    assert not rows[:, 5:, :, :4].any()
    assert torch.equal(rows[:, 5:, :, 4:], LATENTS[..., 4:])


@pytest.mark.parametrize(("kept_weight", "left", "right"), [(1, 1, 1), (0.25, 1.6, 0.4), (0, 2, 0)])
def test_painted_cells_weigh_more(
    tiny_folder: Path, kept_weight: float, left: float, right: float
) -> None:
    scheduler = load_networks(str(tiny_folder)).scheduler
    wrong: list[Tensor] = []

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        wrong.append(torch.zeros_like(noisy))
        return wrong[-1]

    def loss(weight: Tensor | None, clean: Tensor = LATENTS) -> float:
        generator = torch.Generator().manual_seed(0)
        return float(diffusion_loss(scheduler, predict, clean, None, generator, weight))

    # epsilon is predicted and the answer is 0, so an error is the noise squared
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(0)).square()
    masks = left_half()
    expected = left * noise[..., :4].mean() / 2 + right * noise[..., 4:].mean() / 2
    assert loss(masks + kept_weight * (1 - masks)) == pytest.approx(float(expected), rel=1e-5)
    assert loss(torch.ones_like(masks)) == pytest.approx(loss(None), rel=1e-6)


def test_the_finished_folder_loads_and_paints_around_what_is_kept(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    folder = train_inpainting(config_of(radiographs, tiny_folder, tmp_path / "out"), lambda _: None)
    networks = load_networks(str(folder))
    assert networks.unet.config.in_channels == 9
    assert networks.unet.conv_in.weight[:, 4:].any()  # it has learnt from what it is shown
    assert next((tmp_path / "out" / "samples").glob("*.png"))
    unet = shown(
        lambda latents, timestep: call_unet(latents, timestep, torch.zeros(2, 16, 32)),
        LATENTS, left_half(),
    )  # fmt: skip
    process = blended_latents(
        LATENTS, left_half(), fresh_scheduler(networks.scheduler, 2), unet, make_generators([0, 1])
    )
    made = run(process, components_of(networks))
    assert torch.equal(made[..., 4:], LATENTS[..., 4:])
    assert torch.isfinite(made).all()


def test_a_pipeline_of_text_alone_refuses_an_inpainting_model(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    folder = train_inpainting(config_of(radiographs, tiny_folder, tmp_path / "out"), lambda _: None)
    pipeline = TextToCXRPipeline.from_pretrained(folder)
    with pytest.raises(InvalidInput, match="takes 9 channels for 4 of latents"):
        pipeline("pneumonia", num_inference_steps=2)


def test_a_killed_run_follows_the_same_curve(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    def losses(output: Path, kill_at: int = 0) -> list[float]:
        seen: list[float] = []

        def report(info: StepInfo) -> None:
            seen.append(info.losses["loss"])
            if info.step == kill_at:
                raise InterruptedError

        config = config_of(
            radiographs, tiny_folder, output, num_steps=4, checkpoint_every=2, sample_every=4
        )
        try:
            train_inpainting(config, report)
        except InterruptedError:
            assert len(seen) == kill_at
        return seen

    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "killed", 3)[:2] == whole[:2]
    assert losses(tmp_path / "killed") == pytest.approx(whole[2:], rel=1e-4)


def test_an_inpainting_model_can_go_on_learning(
    tiny_folder: Path, radiographs: Path, tmp_path: Path
) -> None:
    first = train_inpainting(config_of(radiographs, tiny_folder, tmp_path / "a"), lambda _: None)
    unet = load_components(first)["unet"]
    before = unet.conv_in.weight.clone()
    widen(unet)
    assert torch.equal(unet.conv_in.weight, before)


def test_a_base_of_other_channels_is_refused(tiny_folder: Path) -> None:
    unet = load_components(tiny_folder)["unet"]
    unet.conv_in = torch.nn.Conv2d(8, 16, 3, padding=1)
    with pytest.raises(InvalidInput, match="a U-Net of 8 channels, but must be of 4"):
        widen(unet)


def test_only_healthy_images_are_read(radiographs: Path, tmp_path: Path) -> None:
    healthy = read_chest_xrays(radiographs, "train", 16, healthy=True)
    assert [each.normal for each in healthy.labels] == [True] * 3
    assert [row["file"] for row in healthy.fields] == [f"images/nih/{i}.png" for i in (0, 2, 4)]
    assert torch.equal(healthy.images[1], read_chest_xrays(radiographs, "train", 16).images[2])
    text = (radiographs / "manifest.csv").read_text().replace("No Finding", "Mass")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(InvalidInput, match="no healthy row of it"):
        read_chest_xrays(tmp_path, "train", 16, healthy=True)
