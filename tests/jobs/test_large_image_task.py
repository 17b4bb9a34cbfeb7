"""Large images as a task: what may be asked, what it costs, how pictures travel, what is made."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from gen.data.limits import Limits
from gen.data.provenance import Record
from gen.data.slide_writer import SlideWriter
from gen.data.stored_tiles import tile_levels
from gen.engine import run
from gen.errors import InvalidInput, UnsafeFile
from jobs.tasks import TASKS
from jobs.tasks.large_image import MAX_PIXELS, REFERENCE, TILE, LargeImageSpec
from jobs.tasks.raster import Raster
from jobs.tasks.uploads import Upload
from pipelines.large_image import LargeImagePipeline
from pipelines.large_previews import LONGEST_SIDE

TASK = TASKS["large-images"]
GENEROUS = Limits()


def picture(height: int = 40, width: int = 50, kind: str = "PNG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, kind)
    return stream.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spec(**fields: Any) -> LargeImageSpec:
    checked: LargeImageSpec = TASK.check({"width": 256, "height": 256, **fields})
    return checked


@pytest.fixture(scope="module")
def pipeline(tiny_large_model: Path) -> LargeImagePipeline:
    loaded: LargeImagePipeline = TASK.load(
        str(tiny_large_model), torch.device("cpu"), torch.float32
    )
    return loaded


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "none of like, variation and text is given"),
        ({"text": "a", "like": b64(picture())}, "like and text of like, variation and text"),
        ({"text": ""}, "at least 1 character"),
        ({"text": "a\x00b"}, "match pattern"),
        ({"variation": []}, "at least 1 item"),
        ({"variation": [b64(picture())] * 5}, "at most 4 items"),
        ({"like": "http://example.org/a.png"}, "no base64"),
        ({"like": "QUJD\nQUJD"}, "no base64"),
        ({"like": 7}, "a file in base64"),
        ({"like": ""}, "a file in base64"),
        ({"like": b64(b"GIF89a" + bytes(40))}, "no PNG, JPEG or TIFF"),
        ({"like": b64(picture()[:40])}, "truncated or damaged"),
        ({"variation": [b64(picture(3000, 10))]}, "max_side is 2048"),
        ({"text": "a", "width": 255}, "greater than or equal to 256"),
        ({"text": "a", "height": 16385}, "less than or equal to 16384"),
        ({"text": "a", "height": 16384, "width": 16384}, "height may be 8192"),
        ({"text": "a", "method": "magic"}, "shift"),
        ({"text": "a", "num_inference_steps": 201}, "less than or equal to 200"),
        ({"text": "a", "guidance_scale": 0.5}, "greater than or equal to 1"),
        ({"text": "a", "microns_per_pixel": 0}, "greater than or equal to 0.05"),
        ({"text": "a", "seed": -1}, "greater than or equal to 0"),
        ({"text": "a", "url": "http://x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_rule_is_named(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**fields)


def test_a_file_with_too_many_bytes_is_not_decoded() -> None:
    data = picture() + bytes(TILE.max_bytes)
    with pytest.raises(ValidationError, match=f"more than {TILE.max_bytes} bytes"):
        spec(variation=[b64(data)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_of_each_kind_are_decoded_to_rgb(kind: str, mode: str) -> None:
    data = picture(kind=kind, mode=mode)
    pixels = Upload(data, REFERENCE).decode()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_our_own_slides_are_references_too(tmp_path: Path, compression: Any) -> None:
    ramp = np.linspace(0, 255, 700).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (600, 700, 3))
    record = Record(model="m", weight_sha256="0" * 64, seed=1, scheduler="s",
                    num_inference_steps=1, guidance_scale=1, height=600, width=700)  # fmt: skip
    with SlideWriter(tmp_path / "a.tif", 600, 700, microns_per_pixel=0.5, record=record,
                     compression=compression) as writer:  # fmt: skip
        writer.write(pixels)
    upload = Upload((tmp_path / "a.tif").read_bytes(), REFERENCE)
    upload.check()
    assert np.abs(upload.decode().astype(int) - pixels).mean() < 2


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (picture(kind="TIFF"), Limits(max_side=45), "max_side is 45"),
        (picture(kind="TIFF"), Limits(max_pixels=1999), "max_pixels is 1999"),
        (picture(kind="PNG"), Limits(max_pixels=1999), "max_pixels is 1999"),
        (picture(kind="TIFF"), Limits(max_bytes=100), "max_bytes is 100"),
        (b"II*\0" + bytes(60), GENEROUS, "damaged"),
        (b"", GENEROUS, "no PNG, JPEG or TIFF"),
    ],
)
def test_a_picture_is_refused_by_its_header(data: bytes, limits: Limits, words: str) -> None:
    with pytest.raises(UnsafeFile, match=words):
        Upload(data, limits).check()


def test_a_tiff_of_16_bits_is_refused_not_clipped() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(stream, "TIFF")
    with pytest.raises(UnsafeFile, match="save it as RGB"):
        Upload(stream.getvalue(), GENEROUS).check()


@given(data=st.binary(max_size=200), start=st.sampled_from([b"II*\0", b"\x89PNG\r\n\x1a\n", b""]))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_picture_are_refused_never_an_error_of_ours(
    data: bytes, start: bytes
) -> None:
    with pytest.raises(InvalidInput):
        Upload(start + data, TILE).decode()


@given(
    source=st.sampled_from(["like", "variation", "text"]),
    num=st.integers(1, 4),
    width=st.integers(256, 16384),
    height=st.integers(256, 8192),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
@settings(max_examples=30, deadline=None)
def test_a_spec_survives_its_journey_and_the_store_gets_no_picture(
    source: str, num: int, width: int, height: int, seed: int | None
) -> None:
    given_source: Any = {
        "like": b64(picture()),
        "variation": [b64(picture(20 + i)) for i in range(num)],
        "text": "stroma",
    }[source]
    full = spec(**{source: given_source}, width=width, height=height, seed=seed)
    assert TASK.check(full.model_dump(mode="json")) == full
    light, files = TASK.detach(full)
    assert "iVBOR" not in str(light)  # how every PNG begins in base64
    assert len(files) == {"like": 1, "variation": num, "text": 0}[source]
    assert TASK.check(TASK.attach(light, files.__getitem__)) == full


def test_an_image_has_one_item_whose_seed_the_request_settles() -> None:
    assert TASK.items(spec(text="a", seed=9), "r") == [{"seed": 9}]
    drawn = TASK.items(spec(text="a"), "r")
    assert drawn == TASK.items(spec(text="a"), "r") != TASK.items(spec(text="a"), "s")


def test_work_is_close_to_the_rows_the_network_answers(pipeline: LargeImagePipeline) -> None:
    side = pipeline.patch_size
    for method, guidance in (("shift", 2.0), ("shift", 1.0), ("overlap", 2.0)):
        asked = spec(text="a", width=2048, height=1536, method=method, guidance_scale=guidance)
        cells = pipeline.canvas_size(1536, 2048)
        generator = torch.Generator().manual_seed(0)
        layouts, _ = pipeline.layouts(cells, asked.method.value, None, 25, generator)
        rows = sum(each.num_windows for each in layouts) * (1 if guidance == 1 else 2)
        assert TASK.work(asked) == pytest.approx(rows * side**2 / 1e6, rel=0.1)
    most = MAX_PIXELS // 16384
    assert TASK.work(spec(text="a", width=16384, height=most)) > 5e3


def made(pipeline: LargeImagePipeline, asked: LargeImageSpec, **settings_: Any) -> Any:
    item = TASK.items(asked, "r")[0]
    result = run(TASK.process(pipeline, asked, item, lambda *_: None), TASK.networks(pipeline))
    return TASK.encode(pipeline, asked, item, result, settings_)


@pytest.mark.parametrize(
    "source",
    [{"text": "stroma"}, {"like": b64(picture(300, 200))}, {"variation": [b64(picture())] * 2}],
)
def test_each_source_becomes_a_slide_that_knows_its_origin(
    pipeline: LargeImagePipeline, tmp_path: Path, source: dict[str, Any]
) -> None:
    asked = spec(**source, width=520, height=300, num_inference_steps=1, seed=4, model="m")
    file = made(pipeline, asked, forward_rows=4)
    assert file.media_type == "image/tiff"
    levels = tile_levels(io.BytesIO(file.data))
    assert (levels[0].width, levels[0].height) == (520, 300)
    (tmp_path / "a.tif").write_bytes(file.data)
    record = Record.from_file(tmp_path / "a.tif")
    assert record.model_dump(mode="json") == file.record
    assert (record.seed, record.task, record.prompt) == (4, "large_image", source.get("text", ""))
    assert record.settings["source"] == next(iter(source))
    assert record.settings["forward_rows"] == 4
    assert (record.source_sha256 is None) == ("text" in source)


def test_a_seed_means_one_image_and_previews_do_not_change_it(
    pipeline: LargeImagePipeline,
) -> None:
    asked = {"variation": [b64(picture())], "num_inference_steps": 2, "model": "m"}
    files = [
        made(pipeline, spec(**asked, seed=seed, previews=previews)).data
        for seed, previews in ((1, False), (1, True), (2, False))
    ]
    assert files[0] == files[1] != files[2]


def test_steps_count_windows_and_a_preview_shows_the_whole_in_colour(
    pipeline: LargeImagePipeline,
) -> None:
    quick = {"variation": [b64(picture())], "num_inference_steps": 1, "guidance_scale": 1}
    asked = spec(**quick, width=1024, height=512, previews=True)
    told: list[tuple[int, int]] = []
    seen: list[torch.Tensor] = []

    def on_step(done: int, total: int, latents: torch.Tensor) -> None:
        told.append((done, total))
        seen.append(latents.clone())

    run(TASK.process(pipeline, asked, {"seed": 1}, on_step), TASK.networks(pipeline))
    assert told[-1][0] == told[-1][1] > 100
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert max(seen[-1].shape[2:]) == LONGEST_SIDE
    assert not (seen[0][0, :, -1] != 0).any()  # no window has been there yet
    pixels = run(TASK.preview(pipeline, seen[-1]), TASK.networks(pipeline))
    with Image.open(io.BytesIO(TASK.preview_png(pixels))) as png:
        assert (png.mode, png.size) == ("RGB", (256, 128))


def test_the_warm_up_calls_what_every_model_has(pipeline: LargeImagePipeline) -> None:
    asked = TASK.check(TASK.warm_up())
    called = set()
    process = TASK.process(pipeline, asked, {"seed": 1}, lambda *_: None)
    networks = TASK.networks(pipeline)
    watched = {
        name: lambda *rows, name=name, network=network: (called.add(name), network(*rows))[1]
        for name, network in networks.items()
    }
    run(process, watched)
    assert called == {"embedder", "null", "projection", "unet", "decoder"}


def test_words_for_a_model_without_a_prior_are_refused_at_once(tiny_large_model: Path) -> None:
    bare = LargeImagePipeline.from_pretrained(tiny_large_model)
    bare.prior = None
    with pytest.raises(InvalidInput, match="has no prior"):
        TASK.process(bare, spec(text="stroma"), {"seed": 1}, lambda *_: None)


def test_a_raster_gives_back_its_rows_and_leaves_nothing() -> None:
    raster = Raster(3)
    rows = np.arange(7 * 3 * 3, dtype=np.uint8).reshape(7, 3, 3)
    for start, end in ((0, 1), (1, 5), (5, 7)):
        raster.write(rows[start:end])
    bands = list(raster.bands(3))
    assert [len(band) for band in bands] == [3, 3, 1]
    assert np.array_equal(np.concatenate(bands), rows)
