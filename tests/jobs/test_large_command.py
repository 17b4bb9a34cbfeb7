"""`medphantom large`: sizes, sources, files and their records, with random networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image
from typer.testing import CliRunner

from gen.data.provenance import Record
from gen.errors import InvalidInput
from jobs.cli import app
from jobs.large import parse_size, stem_of


@pytest.fixture
def model(tiny_large_model: Path) -> Path:
    return tiny_large_model


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "reference.png")
    return tmp_path / "reference.png"


def large(model: Path, *options: str) -> dict[str, object]:
    """The record of a run of two steps."""
    done = CliRunner().invoke(app, ["large", "--model", str(model), "--steps", "2", *options])
    assert done.exit_code == 0, done.output
    row: dict[str, object] = json.loads(done.stdout)
    return row


def test_an_image_like_another_opens_at_every_level_and_knows_its_origin(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "like.ome.tif"
    row = large(model, "--like", str(reference), "--size", "600x520", "--seed", "3",
                "--out", str(out))  # fmt: skip
    with openslide.OpenSlide(out) as slide:
        assert slide.dimensions == (600, 520)
        for level in range(slide.level_count):
            size = slide.level_dimensions[level]
            assert np.asarray(slide.read_region((0, 0), level, size))[..., :3].std() > 0
    record = Record.from_file(out)
    assert record.task == "large_image"
    assert record.seed == row["seed"] == 3
    assert record.source_sha256 is not None
    assert Record.from_file(Path(str(row["preview"]))) == record


def test_the_row_says_what_the_image_cost(model: Path, reference: Path, tmp_path: Path) -> None:
    row = large(model, "--like", str(reference), "--size", "256x128", "--method", "overlap",
                "--out", str(tmp_path / "a.tif"))  # fmt: skip
    # 32 x 64 cells, a window of 8 every 2: 13 x 29; two steps
    assert row["network_calls"] == 13 * 29 * 2
    per_megapixel = row["network_calls_per_megapixel"]
    assert per_megapixel == pytest.approx(13 * 29 * 2 / (256 * 128 / 1e6))
    assert row["seconds"] > 0  # type: ignore[operator]
    assert row["peak_memory_mb"] > 1  # type: ignore[operator]


def test_without_a_size_it_is_as_large_as_the_reference(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    row = large(model, "--like", str(reference), "--out", str(tmp_path / "a.tif"))
    assert (row["height"], row["width"]) == (70, 110)


def test_the_record_says_what_led_to_the_rare_and_how_precisely(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    row = large(model, "--like", str(reference), "--minority-method", "self_guided",
                "--minority-strength", "0.3", "--mixed-precision", "bf16",
                "--out", str(tmp_path / "a.tif"))  # fmt: skip
    settings = Record.from_file(tmp_path / "a.tif").settings
    assert (settings["minority_method"], settings["minority_strength"]) == ("self_guided", 0.3)
    assert settings["mixed_precision"] == "bf16"
    assert row["network_calls"] > 0  # type: ignore[operator]


def test_words_and_variations_make_images_and_tiles(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    row = large(model, "--text", "stroma", "--size", "80x64", "--out", str(tmp_path / "t.ome.tif"),
                "--deep-zoom", "--lossless")  # fmt: skip
    assert row["prompt"] == "stroma"
    assert Path(str(row["deep_zoom"])).is_file()
    large(model, "--variation", str(reference), "--variation", str(reference),
          "--size", "64x64", "--out", str(tmp_path / "v.ome.tif"))  # fmt: skip


def pixels_of(path: Path) -> np.ndarray:
    """All pixels (H, W, 3) of a slide."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def test_tissue_grows_around_a_picture_that_is_kept(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    real, out = np.asarray(Image.open(reference)), tmp_path / "around.tif"
    row = large(model, "--keep", str(reference), "--size", "200x180", "--keep-at", "40,60",
                "--lossless", "--out", str(out))  # fmt: skip
    drawn = pixels_of(out)
    assert np.array_equal(drawn[64:126, 44:146], real[4:66, 4:106])  # all but the seam
    assert drawn[:60].std() > 0
    settings = row["settings"]
    assert isinstance(settings, dict)
    assert (settings["source"], settings["kept_left"], settings["kept_top"]) == ("keep", 40, 60)
    assert settings["real_share"] == pytest.approx(70 * 110 / (200 * 180), abs=1e-5)
    assert row["source_sha256"] is not None


def test_a_mask_says_what_is_kept_and_the_middle_is_where(
    model: Path, reference: Path, tmp_path: Path
) -> None:
    real, out = np.asarray(Image.open(reference)), tmp_path / "masked.tif"
    mask = np.zeros(real.shape[:2], np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    large(model, "--text", "stroma", "--keep", str(reference), "--size", "210x170", "--lossless",
          "--keep-mask", str(tmp_path / "mask.png"), "--out", str(out))  # fmt: skip
    drawn = pixels_of(out)[50:120, 50:160]
    assert np.array_equal(drawn[4:-4, 4:36], real[4:-4, 4:36])
    assert not np.array_equal(drawn[4:-4, 44:], real[4:-4, 44:])


def test_a_seed_means_one_image(model: Path, reference: Path, tmp_path: Path) -> None:
    pixels = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        out = tmp_path / f"{name}.tif"
        large(model, "--like", str(reference), "--seed", seed, "--lossless", "--out", str(out))
        pixels.append(pixels_of(out))
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "exactly one of"),
        (["--text", "a", "--like", "REFERENCE"], "exactly one of"),
        (["--text", "a", "--size", "0x64"], "width is 0"),
        (["--text", "a", "--size", "1000000x64"], "width is 1000000"),
        (["--text", "a", "--size", "big"], "WIDTHxHEIGHT"),
        (["--like", "EMPTY"], "empty"),
        (["--text", "a", "--keep-at", "0,0"], "need --keep"),
        (["--text", "a", "--minority", "0.9"], "minority-calibration"),
        (["--text", "a", "--minority", "0.9", "--minority-strength", "1.1"], "give one of them"),
        (["--keep", "REFERENCE", "--keep-at", "here"], "LEFT,TOP"),
        (["--keep", "REFERENCE", "--size", "64x64"], "not within the image"),
        (["--keep", "REFERENCE", "--keep-mask", "OTHER"], "the mask has the shape"),
        (["--text", "a", "--model", "cxr-mini"], "projection"),
    ],
)
def test_wrong_input_is_explained_and_leaves_no_file(
    model: Path, reference: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    (tmp_path / "empty.png").touch()
    Image.new("L", (9, 9)).save(tmp_path / "other.png")
    places = {"REFERENCE": str(reference), "EMPTY": str(tmp_path / "empty.png")}
    places["OTHER"] = str(tmp_path / "other.png")
    out = tmp_path / "out.tif"
    command = ["large", "--model", str(model), "--out", str(out)]
    command += [places.get(option, option) for option in options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*out*"))


def test_an_existing_file_is_kept(model: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    shutil.copy(reference, out)
    done = CliRunner().invoke(
        app, ["large", "--model", str(model), "--text", "a", "--out", str(out)]
    )
    assert done.exit_code == 2
    assert out.read_bytes() == reference.read_bytes()


def test_sizes_are_width_then_height() -> None:
    assert parse_size("4096x3072") == (4096, 3072)
    assert parse_size(" 10 X 20") == (10, 20)
    for text in ("", "10", "10x", "-1x5", "1e3x5", "9" * 10 + "x1"):
        with pytest.raises(InvalidInput):
            parse_size(text)


def test_the_stem_of_a_slide() -> None:
    assert [stem_of(Path(n)).name for n in ("a.ome.tif", "b.TIFF", "c.d")] == ["a", "b", "c.d"]


def test_the_benchmark_counts_the_networks_rows(model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "real.png")
    command = ["bench", "large", str(tmp_path / "real.png"), "--model", str(model), "--json"]
    options = ["--side", "256", "--steps", "1", "--rounds", "2"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    # 64 cells, a window of 8 every 2: 29 x 29 windows, twice
    assert result["network_calls"]["overlap"] == 29 * 29 * 2
    ratio = result["network_calls"]["shift"] / result["network_calls"]["overlap"]
    assert result["network_calls_ratio"] == ratio < 1 / 5
    assert set(result["seam_score"]) == set(result["crop_fd"]) == {"shift", "overlap", "real"}
