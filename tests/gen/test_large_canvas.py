"""A canvas of bands is denoised as whole latents are, whatever the scheduler, in bounded memory."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.data.canvas import Canvas, new_canvas
from gen.denoising import SCHEDULERS, denoise, fresh_scheduler, scheduler_named
from gen.engine import run
from gen.errors import InvalidInput
from gen.large_canvas import _twin, decode_canvas, denoise_canvas, draw_canvas_noise
from gen.tiling import Layout, bell, overlapping, ramp, shifted
from gen.types import ModelCall, Process

CONFIG = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_end": 0.0205}
STOCHASTIC = ("ddpm", "euler-a")
SIDE = 8


def network(latents: Tensor, timesteps: Tensor) -> Tensor:
    """Local, so that windows do not matter, and not linear."""
    return torch.tanh(latents) * (0.2 + timesteps.view(-1, 1, 1, 1) / 1000)


def predict(latents: Tensor, timestep: Tensor, *_: Any) -> Process[Tensor]:
    return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))


def on_canvas(noise: Tensor, scheduler: Any, layouts: list[Layout], folder: Path) -> Tensor:
    """Latents (C, H, W) that bands become."""
    with new_canvas(folder, *noise.shape) as canvas:
        canvas.write(0, noise)
        generator = torch.Generator().manual_seed(7)
        process = denoise_canvas(canvas, scheduler, predict, layouts, bell(SIDE), generator, folder)
        run(process, {"unet": network})
        return canvas.read(0, canvas.height)


def by_denoise(batch: Tensor, scheduler: Any) -> Tensor:
    """Latents (N, C, H, W) by the loop for whole latents, all noise from one generator."""
    generators = [torch.Generator().manual_seed(7)] * len(batch)
    return run(denoise(batch, scheduler, predict, generators), {"unet": network})


def shifts(height: int, width: int, num_steps: int) -> list[Layout]:
    return shifted(height, width, SIDE, 3, num_steps, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - set(STOCHASTIC)))
@pytest.mark.parametrize("height", [8, 21])
def test_bands_become_what_the_whole_becomes(
    name: str, height: int, prediction_type: str, tmp_path: Path
) -> None:
    scheduler = scheduler_named(name, {**CONFIG, "prediction_type": prediction_type})
    first, second = fresh_scheduler(scheduler, 7), fresh_scheduler(scheduler, 7)
    noise = torch.randn(3, height, 13, generator=torch.Generator().manual_seed(0))
    noise = noise * first.init_noise_sigma
    made = on_canvas(noise, first, shifts(height, 13, len(first.timesteps)), tmp_path)
    expected = by_denoise(noise[None], second)[0]
    assert torch.allclose(made, expected, atol=1e-4 * float(expected.abs().max().clamp_min(1)))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_bands_draw_their_noise_as_a_batch_of_bands_does(name: str, tmp_path: Path) -> None:
    """With a local network, bands of a canvas are a batch that shares one generator."""
    scheduler = scheduler_named(name, CONFIG)
    first, second = fresh_scheduler(scheduler, 7), fresh_scheduler(scheduler, 7)
    noise = torch.randn(3, 3 * SIDE, 13, generator=torch.Generator().manual_seed(0))
    noise = noise * first.init_noise_sigma
    made = on_canvas(noise, first, shifts(3 * SIDE, 13, 7), tmp_path)
    bands = torch.stack(noise.split(SIDE, dim=1))
    expected = torch.cat(list(by_denoise(bands, second)), dim=1)
    assert torch.allclose(made, expected, atol=1e-4 * float(expected.abs().max().clamp_min(1)))


@pytest.mark.parametrize("name", ["dpm++", "unipc", "heun", "pndm"])
def test_between_visits_schedulers_hold_no_latents(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = fresh_scheduler(scheduler_named(name, CONFIG), 7)
    twins: list[Any] = []
    held: list[int] = []

    def kept_twin(scheduler: Any) -> Any:
        twins.append(_twin(scheduler))
        return twins[-1]

    def watched(latents: Tensor, timestep: Tensor, centres: Tensor) -> Process[Tensor]:
        values = [value for twin in [scheduler, *twins] for value in vars(twin).values()]
        items = [x for value in values for x in (value if isinstance(value, list) else [value])]
        held.append(sum(x.numel() for x in items if isinstance(x, Tensor) and x.ndim > 2))
        return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))

    monkeypatch.setattr("gen.large_canvas._twin", kept_twin)
    layouts = shifts(48, 13, len(scheduler.timesteps))
    with new_canvas(tmp_path, 2, 48, 13) as canvas:
        process = denoise_canvas(
            canvas, scheduler, watched, layouts, bell(SIDE), torch.Generator(), tmp_path
        )
        run(process, {"unet": network})
    assert len(twins) == 6
    assert max(held) == 0


def test_a_disk_that_fills_in_mid_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gen.large_canvas.np.savez", full)
    scheduler = fresh_scheduler(scheduler_named("dpm++", CONFIG), 2)
    noise = torch.zeros(1, 8, 8)
    with pytest.raises(InvalidInput, match="has no room for"):
        on_canvas(noise, scheduler, shifts(8, 8, 2), tmp_path)


def test_averaging_noise_is_averaging_estimates_of_x0(tmp_path: Path) -> None:
    """One DDIM step by hand as the paper has it: x0 of each window, their mean, noise from it."""
    scheduler = fresh_scheduler(scheduler_named("ddim", CONFIG), 1)
    noise = torch.randn(2, 8, 14, generator=torch.Generator().manual_seed(0))
    layout = overlapping(8, 14, SIDE, 6)
    answers = iter([torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(3))])

    def random(latents: Tensor, timesteps: Tensor) -> Tensor:
        return next(answers)

    with new_canvas(tmp_path, 2, 8, 14) as canvas:
        canvas.write(0, noise)
        process = denoise_canvas(
            canvas, scheduler, predict, [layout], ramp(SIDE, 2), torch.Generator(), tmp_path
        )
        run(process, {"unet": random})
        made = canvas.read(0, 8)
    epsilon = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[0])]  # type: ignore[attr-defined]
    estimates = [
        (noise[:, :, left : left + 8] - (1 - alpha).sqrt() * epsilon[i]) / alpha.sqrt()
        for i, left in enumerate(layout.lefts)
    ]
    # outside the two shared columns each window is alone; the last step's result is x0 itself
    assert torch.allclose(made[:, :, :6], estimates[0][:, :, :6], atol=1e-4)
    assert torch.allclose(made[:, :, 8:], estimates[1][:, :, 2:], atol=1e-4)
    # weights 0.25 and 0.75 of a ramp of two cells, mirrored in the other window
    mixed = (0.75 * estimates[0][:, :, 6] + 0.25 * estimates[1][:, :, 0]) / 1.0
    assert torch.allclose(made[:, 1:-1, 6], mixed[:, 1:-1], atol=1e-4)


def test_the_network_sees_the_centres_of_its_windows(tmp_path: Path) -> None:
    seen = []

    def place(latents: Tensor, timestep: Tensor, centres: Tensor) -> Process[Tensor]:
        seen.append(centres)
        return (yield ModelCall("unet", (latents, timestep.expand(len(latents)))))

    layout = Layout((0, 5), (0, 6), SIDE)
    with new_canvas(tmp_path, 1, 13, 14) as canvas:
        scheduler = fresh_scheduler(scheduler_named("ddim", CONFIG), 1)
        process = denoise_canvas(
            canvas, scheduler, place, [layout], bell(SIDE), torch.Generator(), tmp_path
        )
        run(process, {"unet": network})
    assert torch.cat(seen).tolist() == [[4, 4], [4, 10], [9, 4], [9, 10]]


class Watched(Canvas):
    """Remembers the most rows that were in memory at once."""

    most = 0

    def read(self, top: int, bottom: int) -> Tensor:
        Watched.most = max(Watched.most, bottom - top)
        return super().read(top, bottom)

    def write(self, top: int, band: Tensor) -> None:
        Watched.most = max(Watched.most, band.shape[1])
        super().write(top, band)


@pytest.mark.parametrize("height", [32, 400])
def test_no_more_than_a_window_of_rows_is_in_memory(height: int, tmp_path: Path) -> None:
    Watched.most = 0
    scheduler = fresh_scheduler(scheduler_named("dpm++", CONFIG), 3)
    generator = torch.Generator().manual_seed(0)
    layouts = shifts(height, 16, 3)
    emitted: list[int] = []
    with new_canvas(tmp_path, 2, height, 16) as file:
        canvas = Watched(file._handle, *file.shape)
        draw_canvas_noise(canvas, SIDE, 1.0, generator)
        process = denoise_canvas(
            canvas, scheduler, predict, layouts, bell(SIDE), generator, tmp_path
        )
        run(process, {"unet": network})

        def decode(latents: Tensor) -> Process[Tensor]:
            return (yield ModelCall("decoder", (latents,)))

        layout = overlapping(height, 16, SIDE, 6)
        process = decode_canvas(
            canvas, decode, layout, 2, 2, lambda top, rows: emitted.append(rows.shape[1])
        )
        run(process, {"decoder": lambda z: z.repeat_interleave(2, 2).repeat_interleave(2, 3)})
    assert Watched.most <= SIDE
    assert max(emitted) <= 2 * SIDE
    assert sum(emitted) == 2 * height


def test_decoding_puts_every_cell_in_its_place(tmp_path: Path) -> None:
    latents = torch.randn(3, 21, 17, generator=torch.Generator().manual_seed(0))
    bands: list[tuple[int, Tensor]] = []

    def decode(windows: Tensor) -> Process[Tensor]:
        return (yield ModelCall("decoder", (windows,)))

    def enlarge(windows: Tensor) -> Tensor:
        return windows.repeat_interleave(4, 2).repeat_interleave(4, 3)

    with new_canvas(tmp_path, 3, 21, 17) as canvas:
        canvas.write(0, latents)
        layout = overlapping(21, 17, SIDE, 6)
        process = decode_canvas(
            canvas, decode, layout, 2, 4, lambda top, rows: bands.append((top, rows))
        )
        run(process, {"decoder": enlarge})
    image = torch.cat([rows for _, rows in bands], dim=1)
    assert torch.allclose(image, enlarge(latents[None])[0], atol=1e-5)
    assert [top for top, _ in bands] == [
        0,
        *torch.tensor([r.shape[1] for _, r in bands]).cumsum(0)[:-1],
    ]


def test_noise_depends_on_the_seed_and_the_bands_only(tmp_path: Path) -> None:
    with new_canvas(tmp_path, 2, 20, 5) as canvas:
        draw_canvas_noise(canvas, 8, 3.0, torch.Generator().manual_seed(5))
        made = canvas.read(0, 20)
    generator = torch.Generator().manual_seed(5)
    bands = [torch.randn(2, rows, 5, generator=generator) * 3 for rows in (8, 8, 4)]
    assert torch.equal(made, torch.cat(bands, dim=1))
