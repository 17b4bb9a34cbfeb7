"""Large images with random networks: layout, sizes, seeds, memory, the prior, known regions."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.canvas import Canvas
from gen.embedding_field import EmbeddingField
from gen.engine import Engine, run
from gen.errors import InvalidInput, ModelRefused
from gen.known_region import KnownRegion
from gen.tiling import bell
from pipelines.large_image import LargeImagePipeline
from pipelines.large_presets import graikos_2024

DIM, PATCH = 8, 32


@pytest.fixture(scope="module")
def pipeline(tiny_large_model: Path) -> LargeImagePipeline:
    return LargeImagePipeline.from_pretrained(tiny_large_model)


def field_of(rows: int = 2, columns: int = 3, seed: int = 0) -> EmbeddingField:
    generator = torch.Generator().manual_seed(seed)
    return EmbeddingField(torch.randn(rows, columns, DIM, generator=generator), (32, 32))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("method", ["shift", "overlap"])
@pytest.mark.parametrize("size", [(64, 96), (33, 70), (1, 1), (31, 129)])
def test_any_size_comes_out_exactly(
    pipeline: LargeImagePipeline, method: Any, size: tuple[int, int]
) -> None:
    image = pipeline(
        field_of(), *size, method=method, num_inference_steps=2, generator=seeded()
    ).images[0]
    assert image.size == size[::-1]
    assert image.mode == "RGB"


def test_the_size_is_the_fields_by_default_and_a_seed_means_one_image(
    pipeline: LargeImagePipeline,
) -> None:
    images = [
        pipeline(field_of(), num_inference_steps=2, generator=seeded(s), output_type="np").images
        for s in (1, 1, 2)
    ]
    assert images[0].shape == (1, 64, 96, 3)
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 0.1


def fakes(pipeline: LargeImagePipeline) -> dict[str, Any]:
    """Networks of which the U-Net answers, as x0, the first component of a window's embedding."""

    def unet(latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return context[:, 0, 0].view(-1, 1, 1, 1).expand_as(latents)

    def decoder(latents: Tensor) -> Tensor:
        pixels = latents[:, :1].repeat_interleave(4, 2).repeat_interleave(4, 3)
        return pixels * pipeline.vae.config.scaling_factor

    return {
        "null": lambda scale: torch.zeros(len(scale), 1, DIM),
        "projection": lambda embeddings, scale: embeddings[:, None],
        "unet": unet,
        "decoder": decoder,
    }


def painted(pipeline: LargeImagePipeline, field: EmbeddingField, **options: Any) -> NDArray[Any]:
    """An image (H, W) in [-1, 1] by `fakes`."""
    bands: list[NDArray[np.uint8]] = []
    scheduler = type(pipeline.scheduler).from_config(
        pipeline.scheduler.config, prediction_type="sample"
    )
    process = pipeline.process(
        field, bands.append, guidance_scale=1.0, scheduler=scheduler, generator=seeded(), **options
    )
    run(process, fakes(pipeline))
    return np.concatenate(bands)[..., 0].astype(float) / 127.5 - 1


@pytest.mark.parametrize("method", ["shift", "overlap"])
@pytest.mark.parametrize("corner", [(0, 0), (0, 5), (3, 0), (3, 5)])
def test_a_distinct_corner_lands_in_that_corner(
    pipeline: LargeImagePipeline, method: str, corner: tuple[int, int]
) -> None:
    grid = torch.zeros(4, 6, DIM)
    grid[..., 1] = 1
    grid[corner] = torch.eye(DIM)[0]
    image = painted(pipeline, EmbeddingField(grid, (32, 32)), num_inference_steps=8, method=method)
    rows, columns = corner
    quarters = image.reshape(4, 32, 6, 32).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), quarters.shape) == (rows, columns)
    others = np.delete(quarters.ravel(), rows * 6 + columns)
    assert quarters[corner] > 2 * others.max()


def test_a_step_in_the_embeddings_is_seen_in_the_middle(pipeline: LargeImagePipeline) -> None:
    grid = torch.zeros(3, 6, DIM)
    grid[:, :3, 0] = 1
    grid[:, 3:, 0] = -1
    grid[..., 1] = 1e-3  # opposite vectors have no arc
    image = painted(
        pipeline, EmbeddingField(grid, (32, 32)), num_inference_steps=8, method="overlap"
    )
    profile = image.mean(axis=0)
    # columns 2 and 3 meet at pixel 96
    assert profile[:90].min() > 0
    assert profile[102:].max() < 0
    assert profile + profile[::-1] == pytest.approx(np.zeros(192), abs=0.05)


def test_a_constant_field_and_network_give_a_constant_image(pipeline: LargeImagePipeline) -> None:
    grid = torch.zeros(2, 2, DIM)
    grid[..., 0], grid[..., 1] = 0.6, 0.8
    image = painted(pipeline, EmbeddingField(grid, (32, 32)), num_inference_steps=3)
    assert np.abs(image - 0.6).max() < 0.01


def test_two_large_images_share_an_engine_and_stay_what_they_are_alone(
    pipeline: LargeImagePipeline,
) -> None:
    def start(seed: int, bands: list[Any]) -> Any:
        return pipeline.process(
            field_of(seed=seed), bands.append, num_inference_steps=2, generator=seeded(seed)
        )

    alone: dict[int, list[Any]] = {1: [], 2: []}
    together: dict[int, list[Any]] = {1: [], 2: []}
    for seed, bands in alone.items():
        run(start(seed, bands), pipeline.networks)
    engine = Engine(pipeline.networks, max_rows=5)
    tickets = [engine.submit(start(seed, bands)) for seed, bands in together.items()]
    engine.drain()
    assert [ticket.result() for ticket in tickets] == [None, None]
    for seed in (1, 2):
        first, second = (np.concatenate(each[seed]).astype(int) for each in (alone, together))
        assert np.abs(first - second).max() <= 1


def test_bands_come_from_the_top_and_are_never_high(pipeline: LargeImagePipeline) -> None:
    bands: list[NDArray[np.uint8]] = []
    process = pipeline.process(
        field_of(), bands.append, height=400, width=40, num_inference_steps=1, generator=seeded()
    )
    run(process, pipeline.networks)
    assert sum(len(band) for band in bands) == 400
    assert max(len(band) for band in bands) <= 2 * PATCH


@pytest.mark.parametrize("known_rows", [0, 24])
def test_what_is_in_memory_does_not_grow_with_the_height(
    pipeline: LargeImagePipeline, monkeypatch: pytest.MonkeyPatch, known_rows: int
) -> None:
    largest = 0

    def see(*tensors: Tensor) -> None:
        nonlocal largest
        largest = max(largest, *(tensor.numel() for tensor in tensors))

    read, write = Canvas.read, Canvas.write

    def watched_read(canvas: Canvas, top: int, bottom: int) -> Tensor:
        band = read(canvas, top, bottom)
        see(band)
        return band

    def watched_write(canvas: Canvas, top: int, band: Tensor) -> None:
        see(band)
        write(canvas, top, band)

    monkeypatch.setattr(Canvas, "read", watched_read)
    monkeypatch.setattr(Canvas, "write", watched_write)
    networks = {
        "encoder": lambda images: torch.zeros(len(images), 4, *(s // 4 for s in images.shape[2:]))
    } | fakes(pipeline)

    def most(height: int) -> int:
        nonlocal largest
        largest = 0
        pixels = np.zeros((known_rows, 40, 3), np.uint8)
        process = pipeline.process(
            field_of(), lambda band: see(torch.from_numpy(band)), height=height, width=70,
            num_inference_steps=4, generator=seeded(),
            known=KnownRegion(pixels, 3, 3) if known_rows else None,
        )  # fmt: skip
        call = next(process)
        with suppress(StopIteration):
            while True:
                see(*call.rows)
                call = process.send(networks[call.component](*call.rows))
        return largest

    assert most(1024) == most(128)


def test_a_known_region_stays_and_the_rest_grows(pipeline: LargeImagePipeline) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
    known = KnownRegion(pixels, top=30, left=21)
    bands: list[NDArray[np.uint8]] = []
    process = pipeline.process(
        field_of(), bands.append, height=128, width=96, num_inference_steps=3,
        generator=seeded(), known=known,
    )  # fmt: skip
    run(process, pipeline.networks)
    image = np.concatenate(bands)
    inner = image[30 + 4 : 78 - 4, 21 + 4 : 61 - 4]
    assert np.array_equal(inner, pixels[4:-4, 4:-4])
    assert image[:20].std() > 0


def test_a_mask_keeps_the_left_half_of_an_image_and_the_right_half_is_drawn(
    pipeline: LargeImagePipeline,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), bool)
    mask[:, :50] = True
    bands: list[NDArray[np.uint8]] = []
    process = pipeline.process(
        field_of(), bands.append, num_inference_steps=3, generator=seeded(),
        known=KnownRegion(pixels, 0, 0, mask),
    )  # fmt: skip
    run(process, pipeline.networks)
    image = np.concatenate(bands)
    assert np.array_equal(image[:, :46], pixels[:, :46])
    assert (image[:, 50:] != pixels[:, 50:]).mean() > 0.9


@pytest.mark.parametrize(
    ("top", "left", "words"), [(-1, 0, "not within"), (90, 0, "not within"), (0, 60, "not within")]
)
def test_a_known_region_outside_is_refused(
    pipeline: LargeImagePipeline, top: int, left: int, words: str
) -> None:
    known = KnownRegion(np.zeros((48, 40, 3), np.uint8), top, left)
    with pytest.raises(InvalidInput, match=words):
        pipeline.process(field_of(), lambda _: None, height=128, width=96, known=known)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": -3}, "height is -3"),
        ({"height": 0}, "height is 0"),
        ({"width": 0}, "width is 0"),
        ({"width": 10**6}, "width is 1000000"),
        ({"method": "magic"}, "method is 'magic'"),
        ({"overlap": 8}, "overlap is 8"),
        ({"microns_per_pixel": 0}, "microns_per_pixel is 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_step(
    pipeline: LargeImagePipeline, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        pipeline.process(field_of(), lambda _: None, **options)


def test_the_papers_preset_calls_the_network_as_the_paper_does(
    pipeline: LargeImagePipeline,
) -> None:
    preset = graikos_2024(pipeline.scheduler)
    scheduler = preset["scheduler"]
    assert scheduler.config.beta_end == pipeline.scheduler.config.beta_end
    assert scheduler.config.prediction_type == pipeline.scheduler.config.prediction_type
    rows: list[int] = []
    networks = fakes(pipeline)
    unet = networks["unet"]

    def counted(latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        rows.append(len(latents))
        assert timesteps[0] % 20 == 19  # 999, 979, ... 19
        return unet(latents, timesteps, context)

    process = pipeline.process(field_of(), lambda _: None, generator=seeded(), **preset)
    run(process, {**networks, "unet": counted})
    windows = 5 * 9  # every 2 of 16 x 24 cells
    assert sum(rows) == 50 * windows * 2


def test_the_default_calls_it_for_windows_that_share_a_quarter(
    pipeline: LargeImagePipeline,
) -> None:
    layouts, weights = pipeline.layouts((64, 64), "shift", None, 5, seeded())
    assert torch.equal(weights, bell(8))
    for layout in layouts:
        inner = torch.tensor(layout.tops[1:-1])
        assert set(inner.diff().tolist()) == {6}
    papers, equal = pipeline.layouts((64, 64), "overlap", None, 5, seeded())
    assert torch.equal(equal, torch.ones(8, 8))
    assert papers[0].tops == tuple(range(0, 57, 2))


def test_without_a_generator_the_global_one_is_left_alone(pipeline: LargeImagePipeline) -> None:
    before = torch.get_rng_state()
    pipeline.process(field_of(), lambda _: None)
    next(pipeline.field_from_text("stroma", 64, 64))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_field_of_another_encoder_is_refused(pipeline: LargeImagePipeline) -> None:
    with pytest.raises(InvalidInput, match="5 dimensions, but the model was trained with 8"):
        pipeline(EmbeddingField(torch.ones(2, 2, 5), (32, 32)))


def test_a_model_of_another_task_is_refused() -> None:
    with pytest.raises((InvalidInput, ModelRefused), match="projection"):
        LargeImagePipeline.from_pretrained("cxr-mini")
