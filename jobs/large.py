"""`medphantom large`: tissue of any size, like an image, varied from it, or from words."""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from gen.errors import InvalidInput
from jobs import large_options as options
from jobs.bars import bars
from jobs.device import Precision, autocast, peak_mb
from jobs.large_record import large_record
from jobs.large_source import Source, find_field, read_known, size_of, source_of
from jobs.minority_record import reached_settings, sampling_asked
from jobs.targets import MixedPrecision

if TYPE_CHECKING:  # torch is imported when images are made, not when help is read
    from gen.data.provenance import Record
    from gen.known_region import KnownRegion
    from pipelines.large_image import LargeImagePipeline
    from pipelines.minority import MinoritySampling

PREVIEW_SIDE = 1024


@dataclass(frozen=True)
class LargeConfig:
    """What one run makes."""

    source: Source
    model: str
    out: Path
    images: tuple[Path, ...] = ()
    text: str = ""
    size: tuple[int, int] | None = None  # (width, height)
    keep: Path | None = None
    keep_mask: Path | None = None
    keep_at: tuple[int, int] | None = None  # (left, top)
    method: options.Method = options.Method.SHIFT
    num_inference_steps: int = 25
    guidance_scale: float = 1.0
    microns_per_pixel: float = 0.5
    minority: float | None = None
    minority_method: str | None = None
    minority_strength: float | None = None
    allow_common: bool = False
    mixed_precision: Precision = Precision.NO
    seed: int = 0
    deep_zoom: bool = False
    lossless: bool = False
    overwrite: bool = False
    allow_download: bool = False


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "4096x3072".

    Raises:
        InvalidInput: it is not two whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*", text)
    if match is None:
        raise InvalidInput(f"size is {text!r}, but must be WIDTHxHEIGHT in pixels, as 4096x4096")
    return int(match[1]), int(match[2])


def parse_place(text: str) -> tuple[int, int]:
    """(left, top) of "512,0".

    Raises:
        InvalidInput: it is not two whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", text)
    if match is None:
        raise InvalidInput(f"keep-at is {text!r}, but must be LEFT,TOP in pixels, as 512,0")
    return int(match[1]), int(match[2])


def run_large(
    config: LargeConfig,
    on_windows: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Make one image and write it with its record and a picture of it in small.

    Args:
        config: what to make.
        on_windows: told (windows drawn, of how many).

    Returns:
        The line of the record, with `file`, `preview` and `costs`.
    """
    import torch

    from gen.data.atomic import check_writable
    from gen.data.deep_zoom import write_deep_zoom
    from gen.data.slide import thumbnail
    from gen.data.slide_writer import SlideWriter
    from gen.engine import run
    from jobs.counted import counted
    from jobs.device import rows_at_once
    from pipelines.large_image import LargeImagePipeline, check_size

    check_writable(config.out, overwrite=config.overwrite)  # before the work, not after it
    width, height = size_of(config)
    check_size(height, width)
    pipeline = LargeImagePipeline.from_pretrained(
        config.model, allow_download=config.allow_download
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    minority = sampling_asked(
        config.minority,
        config.minority_method,
        config.minority_strength,
        config.allow_common,
        lambda: pipeline.minority_calibration,
    )
    generator = torch.Generator().manual_seed(config.seed)
    networks, rows = counted(pipeline.networks)
    started = time.perf_counter()
    known = read_known(config, height, width)
    with autocast(config.mixed_precision):
        field = run(find_field(pipeline, config, height, width, generator, known), networks)
    record = record_of(pipeline, config, height, width, known, minority)
    calibration = pipeline.calibration_for(minority)
    with SlideWriter(
        config.out,
        height,
        width,
        microns_per_pixel=config.microns_per_pixel,
        record=record,
        compression="deflate" if config.lossless else "jpeg",
        overwrite=config.overwrite,
    ) as writer:
        process = pipeline.process(
            field,
            writer.write,
            height=height,
            width=width,
            method=config.method.value,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            microns_per_pixel=config.microns_per_pixel,
            generator=generator,
            known=known,
            minority=minority,
            calibration=calibration,
            on_windows=on_windows,
        )
        with autocast(config.mixed_precision):
            reached = run(process, networks, max_rows=rows_at_once())
        if reached is not None:
            measured = {**record.settings, **reached_settings(reached)}
            writer.record = record = record.model_copy(update={"settings": measured})
    preview = stem_of(config.out).with_suffix(".png")
    thumbnail(config.out, PREVIEW_SIDE).save(preview, pnginfo=record.to_png_info())
    row = {
        "file": str(config.out),
        "preview": str(preview),
        **record.model_dump(mode="json"),
        **costs(rows["unet"], height, width, time.perf_counter() - started),
    }
    if config.deep_zoom:
        description = stem_of(config.out).with_suffix(".dzi")
        write_deep_zoom(config.out, description)
        row["deep_zoom"] = str(description)
    return row


def costs(rows: int, height: int, width: int, seconds: float) -> dict[str, float]:
    """What an image took, as programs compare it.

    Args:
        rows: that the U-Net answered; with guidance, a window of a step is two. Those that told how
            rare the image became are among them.
        height, width: in pixels.
        seconds: from the source's embeddings to the written file.
    """
    return {
        "network_calls": rows,
        "network_calls_per_megapixel": rows / (height * width / 1e6),
        "seconds": round(seconds, 3),
        "peak_memory_mb": round(peak_mb(), 1),
    }


def record_of(
    pipeline: "LargeImagePipeline",
    config: LargeConfig,
    height: int,
    width: int,
    known: "KnownRegion | None" = None,
    minority: "MinoritySampling | None" = None,
) -> "Record":
    """Where the image comes from."""
    digests = []
    for path in filter(None, (*config.images, config.keep, config.keep_mask)):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return large_record(
        pipeline,
        model=config.model,
        source=config.source.value,
        text=config.text,
        source_digests=digests,
        seed=config.seed,
        method=config.method.value,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        microns_per_pixel=config.microns_per_pixel,
        height=height,
        width=width,
        keep=known,
        minority=minority,
        mixed_precision=config.mixed_precision.value,
    )


def stem_of(path: Path) -> Path:
    """The path without .tif, .ome.tif and the like."""
    return path.with_name(re.sub(r"(\.ome)?\.tiff?$", "", path.name, flags=re.IGNORECASE))


def command(
    like: options.Like = None,
    variation: options.Variation = None,
    text: options.Text = None,
    size: options.Size = None,
    keep: options.Keep = None,
    keep_mask: options.KeepMask = None,
    keep_at: options.KeepAt = None,
    model: options.Model = "histo-mini",
    out: options.Out = Path("large.ome.tif"),
    method: options.Windows = options.Method.SHIFT,
    steps: options.Steps = 25,
    guidance: options.Guidance = 1.0,
    microns_per_pixel: options.MicronsPerPixel = 0.5,
    minority: options.Minority = None,
    minority_method: options.MinorityMethod = None,
    minority_strength: options.MinorityStrength = None,
    allow_common: options.AllowCommon = False,
    seed: options.Seed = None,
    mixed_precision: MixedPrecision = Precision.NO,
    deep_zoom: options.DeepZoom = False,
    lossless: options.Lossless = False,
    overwrite: options.Overwrite = False,
    allow_download: options.AllowDownload = False,
) -> None:
    """Make a large image of tissue, of any size, as a pyramidal OME-TIFF.

    OpenSlide, QuPath and most slide viewers open it; a small PNG is written beside it.

    Examples:

    medphantom large --like region.png --size 4096x4096 --seed 1 --out like.ome.tif

    medphantom large --text "tumour epithelium" --size 2048x2048 --out text.ome.tif

    medphantom large --variation tile.png --size 1024x1024 --out varied.ome.tif

    medphantom large --keep region.png --size 2048x2048 --out around.ome.tif

    medphantom large --variation tile.png --size 1024x1024 --minority 0.6 --out rare.ome.tif
    """
    source = source_of(like, variation, text, keep)
    if keep is None and (keep_mask or keep_at):
        raise InvalidInput("keep-mask and keep-at need --keep IMAGE; name the picture to keep")
    config = LargeConfig(
        source=source,
        out=out,
        images=(like,) if like else tuple(variation or ()),
        text=text or "",
        size=parse_size(size) if size else None,
        keep=keep,
        keep_mask=keep_mask,
        keep_at=parse_place(keep_at) if keep_at else None,
        model=model,
        method=method,
        num_inference_steps=steps,
        guidance_scale=guidance,
        microns_per_pixel=microns_per_pixel,
        minority=minority,
        minority_method=minority_method,
        minority_strength=minority_strength,
        allow_common=allow_common,
        mixed_precision=mixed_precision,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        deep_zoom=deep_zoom,
        lossless=lossless,
        overwrite=overwrite,
        allow_download=allow_download,
    )
    with bars() as progress:
        row = run_large(config, progress.bar("windows"))
    typer.echo(json.dumps(row))
    Console(stderr=True).print(
        f"Synthetic tissue in [bold]{out}[/bold]; in small: {row['preview']}"
    )
