"""`medphantom generate`: chest X-rays from sentences, as files that say how they were made."""

import csv
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gen.errors import InvalidInput
from jobs.device import Precision, autocast, precise
from jobs.minority_record import minority_of, minority_settings
from jobs.targets import MixedPrecision

if TYPE_CHECKING:  # torch is imported when images are made, not when help is read
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.provenance import Record
    from pipelines.minority import MinoritySampling
    from pipelines.text_to_cxr import TextToCXRPipeline

MAX_IMAGES = 1_000_000
GRID_IMAGES = 64  # a contact sheet of more is no longer looked at


class Format(StrEnum):
    """File formats of the images."""

    PNG = "png"
    DICOM = "dicom"
    NPY = "npy"


@dataclass(frozen=True)
class Item:
    """One image to make."""

    prompt: str
    seed: int
    negative_prompt: str = ""


@dataclass(frozen=True)
class GenerateConfig:
    """What one run makes: items that share model, sampler and size."""

    items: tuple[Item, ...]
    out: Path
    model: str = "cxr-mini"
    num_inference_steps: int = 25
    guidance_scale: float = 1.5
    scheduler: str = "dpm++"
    height: int | None = None
    width: int | None = None
    file_format: Format = Format.PNG
    lora: str | None = None
    allow_download: bool = False
    batch_size: int | None = None
    mixed_precision: Precision = Precision.NO
    minority: "float | MinoritySampling | None" = None
    minority_method: str | None = None
    allow_common: bool = False


def read_prompts(path: Path, n: int, seed: int) -> list[Item]:
    """Items of a CSV file with the column `prompt` and, if wanted, `n`, `seed`, `negative_prompt`.

    Raises:
        InvalidInput: a column is missing or a cell is no number.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "prompt" not in (reader.fieldnames or []):
            raise InvalidInput(
                f"{path} has the columns {', '.join(reader.fieldnames or []) or '(none)'};"
                " add one named 'prompt'"
            )
        items: list[Item] = []
        for line, row in enumerate(reader, 2):
            where = f"{path}, line {line}"
            count = _integer(row.get("n"), n, f"{where}: n")
            first = _integer(row.get("seed"), seed + len(items), f"{where}: seed")
            negative = row.get("negative_prompt") or ""
            items += items_of(row["prompt"] or "", count, first, negative)
    return items


def _integer(cell: str | None, default: int, name: str) -> int:
    if not cell:
        return default
    if not cell.strip().isdecimal():
        raise InvalidInput(f"{name} is {cell!r}, but must be a whole number of at least 0")
    return int(cell)


def items_of(prompt: str, n: int, seed: int, negative_prompt: str = "") -> list[Item]:
    """`n` images of one sentence, seeds counting up from `seed`."""
    if not 1 <= n <= MAX_IMAGES:
        raise InvalidInput(f"n is {n}, but must be from 1 to {MAX_IMAGES}")
    if not 0 <= seed < 2**63:
        raise InvalidInput(f"seed is {seed}, but must be from 0 to 2^63 - 1")
    return [Item(prompt, seed + i, negative_prompt) for i in range(n)]


def run_generate(
    config: GenerateConfig,
    on_image: Callable[[dict[str, Any]], None],
    on_step: Callable[[int], None] = lambda _: None,
) -> Path:
    """Make every item and write it with its record, `metadata.jsonl` and `grid.png`.

    Args:
        config: what to make.
        on_image: gets the record of each image once its file is whole.
        on_step: gets the number of images that have just advanced by one step.

    Returns:
        The path of the contact sheet.
    """
    from gen.data.manifest import append_metadata

    check_folder(config.out)
    pipeline = load_pipeline(config)
    batch_size = config.batch_size or default_batch_size(pipeline)
    sheet: list[NDArray[np.floating]] = []
    for first in range(0, len(config.items), batch_size):
        items = config.items[first : first + batch_size]
        images, records = make_batch(pipeline, config, items, on_step)
        for i, (pixels, record) in enumerate(zip(images, records, strict=True)):
            path = config.out / file_name(first + i, config.file_format)
            write_image(path, pixels, record, config.file_format)
            append_metadata(config.out, [record.to_row(path.name)])
            on_image({"file": str(path), **record.model_dump(mode="json")})
        sheet += [] if len(sheet) >= GRID_IMAGES else list(images)
    return write_grid(config.out / "grid.png", sheet[:GRID_IMAGES])


def check_folder(out: Path) -> None:
    """Make the folder; refuse one that has anything in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(
            f"out is {out}, which is not an empty folder; name another, nothing is overwritten"
        )
    out.mkdir(parents=True, exist_ok=True)


def load_pipeline(config: GenerateConfig) -> "TextToCXRPipeline":
    """The pipeline with its scheduler, on the GPU if there is one."""
    import torch

    from gen.denoising import scheduler_named
    from pipelines.text_to_cxr import TextToCXRPipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    pipeline = TextToCXRPipeline.from_pretrained(
        config.model, torch_dtype=dtype, lora=config.lora, allow_download=config.allow_download
    )
    pipeline.scheduler = scheduler_named(config.scheduler, pipeline.scheduler.config)
    return pipeline.to(device)


def default_batch_size(pipeline: "TextToCXRPipeline") -> int:
    """Images denoised together: what a CPU's caches, or a small GPU's memory, hold."""
    return 16 if pipeline.device.type == "cuda" else 4


def make_batch(
    pipeline: "TextToCXRPipeline",
    config: GenerateConfig,
    items: Iterable[Item],
    on_step: Callable[[int], None],
) -> tuple["NDArray[np.floating]", list["Record"]]:
    """Images (N, H, W) in [0, 1] of items made together, and their records."""
    from gen.denoising import make_generators

    items = list(items)
    with autocast(config.mixed_precision):
        result = pipeline(
            [item.prompt for item in items],
            negative_prompt=[item.negative_prompt for item in items],
            height=config.height,
            width=config.width,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=make_generators([item.seed for item in items]),
            minority=config.minority,
            minority_method=config.minority_method,
            allow_common=config.allow_common,
            output_type="np",
            callback_on_step_end=lambda *_: on_step(len(items)) or {},  # type: ignore[func-returns-value]
        )
    images = result.images.mean(-1)
    records = [
        record_of(pipeline, config, items, index, images.shape[1:], result.minority_reached)
        for index in range(len(items))
    ]
    return images, records


def record_of(
    pipeline: "TextToCXRPipeline",
    config: GenerateConfig,
    items: list[Item],
    index: int,
    size: tuple[int, ...],
    reached: list[float] | None = None,
) -> "Record":
    """The record of one image of a batch.

    Floating point sums depend on the shape of the batch, so `num_images` and the image's place
    in it are recorded: with them the image is made again to the last bit.
    """
    from gen.data.provenance import Record

    item = items[index]
    settings: dict[str, str | int | float | bool | None] = {
        "batch_index": index,
        "device": pipeline.device.type,
    }
    if config.lora is not None:
        settings["lora"] = config.lora
    if config.mixed_precision is not Precision.NO:
        settings["mixed_precision"] = config.mixed_precision.value
    sampling = sampling_of(pipeline, config)
    if sampling is not None and reached is not None:
        settings |= minority_settings(sampling, reached[index])
    return Record(
        model=config.model,
        weight_sha256=pipeline.weight_sha256,
        prompt=item.prompt,
        negative_prompt=item.negative_prompt,
        seed=item.seed,
        scheduler=config.scheduler,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        height=size[0],
        width=size[1],
        num_images=len(items),
        settings=settings,
    )


def sampling_of(pipeline: "TextToCXRPipeline", config: GenerateConfig) -> "MinoritySampling | None":
    """What reaches the level of rarity that is asked for."""
    if not isinstance(config.minority, float):
        return config.minority
    return pipeline.minority_sampling(config.minority, config.minority_method, config.allow_common)


def regenerate(
    record: "Record", out: Path, file_format: Format, on_step: Callable[[int], None]
) -> dict[str, Any]:
    """Make the image of a record again, bit for bit on the same kind of device."""
    lora = record.settings.get("lora")
    config = GenerateConfig(
        items=(Item(record.prompt, record.seed, record.negative_prompt),) * record.num_images,
        out=out,
        model=record.model,
        num_inference_steps=record.num_inference_steps,
        guidance_scale=record.guidance_scale,
        scheduler=record.scheduler,
        height=record.height,
        width=record.width,
        lora=str(lora) if lora else None,
        mixed_precision=Precision(str(record.settings.get("mixed_precision") or "no")),
        minority=minority_of(record.settings),
    )
    check_folder(out)
    pipeline = load_pipeline(config)
    if pipeline.weight_sha256 != record.weight_sha256:
        raise InvalidInput(
            f"the record was made by other weights of {record.model!r}"
            f" ({record.weight_sha256[:12]}, here {pipeline.weight_sha256[:12]});"
            " install the software version it names"
        )
    if "forward_rows" in record.settings:
        pixels, again = make_exact(pipeline, record), record
    else:
        images, records = make_batch(pipeline, config, config.items, on_step)
        index = int(record.settings.get("batch_index") or 0)
        pixels, again = images[index], records[index]
    path = out / file_name(0, file_format)
    write_image(path, pixels, again, file_format)
    return {"file": str(path), **again.model_dump(mode="json")}


def make_exact(pipeline: "TextToCXRPipeline", record: "Record") -> "NDArray[np.floating]":
    """Pixels (H, W) in [0, 1] of an image that a job of the service made.

    Its bits do not depend on who shared its forwards, only on their least number of rows.
    """
    from gen.denoising import make_generators
    from gen.engine import Engine

    rows = int(record.settings["forward_rows"] or 1)
    precision = Precision(str(record.settings.get("mixed_precision") or "no"))
    engine = Engine(precise(pipeline.networks, precision), rows, exact_rows=rows)
    process = pipeline.process(
        record.prompt,
        negative_prompt=record.negative_prompt or None,
        height=record.height,
        width=record.width,
        num_inference_steps=record.num_inference_steps,
        guidance_scale=record.guidance_scale,
        generator=make_generators([record.seed]),
        minority=minority_of(record.settings),
    )
    ticket = engine.submit(process, exact=True)
    engine.drain()
    pixels: NDArray[np.floating] = ticket.result()[0].float().mean(0).cpu().numpy()
    return pixels


def file_name(index: int, file_format: Format) -> str:
    """Name of the image at `index` of its run."""
    return f"{index:06d}.{'dcm' if file_format is Format.DICOM else file_format.value}"


def write_image(
    path: Path, pixels: "NDArray[np.floating]", record: "Record", file_format: Format
) -> None:
    """Write pixels (H, W) in [0, 1], whole or not at all; npy files are float32."""
    import numpy as np

    from gen.data.atomic import atomic_file
    from gen.data.dicom import write_dicom
    from gen.data.images import write_png

    if file_format is Format.PNG:
        write_png(path, pixels, record)
    elif file_format is Format.DICOM:
        write_dicom(path, pixels, record)
    else:
        with atomic_file(path) as stream:
            np.save(stream, pixels.astype(np.float32))


def write_grid(path: Path, images: "list[NDArray[np.floating]]") -> Path:
    """A contact sheet of images (H, W) in [0, 1]."""
    import numpy as np
    import torch

    from gen.training.pictures import save_grid

    save_grid(torch.from_numpy(np.stack(images))[:, None] * 2 - 1, path)
    return path


def command(
    prompt: Annotated[
        str | None, typer.Argument(help='A sentence, e.g. "chest x-ray of a child with pneumonia"')
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV: prompt and, if wanted, n, seed, negative_prompt"
        ),
    ] = None,
    from_record: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Make the image of this file again"),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Images a prompt")] = 4,
    out: Annotated[Path, typer.Option(help="New or empty folder for the images")] = Path("out"),
    model: Annotated[str, typer.Option(help="Id, folder, hub id or checkpoint")] = "cxr-mini",
    lora: Annotated[str | None, typer.Option(help="LoRA adapter to add to the model")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What to stay away from")] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the first image; drawn if not given")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps; 20-25 is plenty")] = 25,
    guidance: Annotated[float, typer.Option(help="How strictly to follow the text; 1 = off")] = 1.5,
    scheduler: Annotated[
        str, typer.Option(help="dpm++, ddim, euler, euler-a, heun, unipc, pndm or ddpm")
    ] = "dpm++",
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; the model's own size")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; the model's own size")] = None,
    minority: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How rare: 0.9 is as the rarest tenth of real images"),
    ] = None,
    minority_method: Annotated[
        str | None,
        typer.Option(
            help="boost_and_skip, classifier, self_guided or prompt; the cheapest that reaches it"
        ),
    ] = None,
    allow_common: Annotated[
        bool, typer.Option(help="Allow --minority below 0.5, which pushes the rare away")
    ] = False,
    file_format: Annotated[Format, typer.Option("--format", help="File format")] = Format.PNG,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images made together; chosen by the device")
    ] = None,
    mixed_precision: MixedPrecision = Precision.NO,
    allow_download: Annotated[
        bool, typer.Option(help="Fetch a hub model that is not in the local cache")
    ] = False,
) -> None:
    """Make chest X-rays from a sentence, from a CSV of sentences, or again from a record.

    Examples:

    medphantom generate "frontal chest x-ray of a child with pneumonia" -n 8 --seed 1 --out p

    medphantom generate --prompts cohort.csv --format dicom --out cohort

    medphantom generate "chest x-ray of an adult" -n 8 --minority 0.9 --out rare

    medphantom generate --from-record p/000003.png --out again
    """
    if sum(source is not None for source in (prompt, prompts, from_record)) != 1:
        raise InvalidInput("give exactly one of PROMPT, --prompts FILE and --from-record FILE")
    console = Console(stderr=True)
    if from_record is not None:
        from gen.data.provenance import Record

        record = Record.from_file(from_record)
        with _progress(console) as bar:
            task = bar.add_task("denoising", total=record.num_inference_steps)
            _print(regenerate(record, out, file_format, lambda _: bar.advance(task)))
        return
    base = secrets.randbelow(2**31) if seed is None else seed
    items = (
        read_prompts(prompts, n, base)
        if prompts is not None
        else items_of(prompt or "", n, base, negative_prompt)
    )
    config = GenerateConfig(
        items=tuple(items),
        out=out,
        model=model,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        height=height,
        width=width,
        file_format=file_format,
        lora=lora,
        allow_download=allow_download,
        batch_size=batch_size,
        mixed_precision=mixed_precision,
        minority=minority,
        minority_method=minority_method,
        allow_common=allow_common,
    )
    with _progress(console) as bar:
        task = bar.add_task("denoising", total=len(items) * steps)
        grid = run_generate(config, _print, lambda count: bar.advance(task, count))
    console.print(f"{len(items)} synthetic images in [bold]{out}[/bold]; look at {grid}")


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("image steps"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console)


def _print(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record))
