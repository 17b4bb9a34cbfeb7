"""`medphantom evaluate large`: large images of tissue against real ones."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gen.data.atomic import atomic_file
from jobs.bars import Bars, bars
from jobs.large_copies import FALSE_ALARMS, find_copies
from jobs.large_sets import Gallery, Picture, Spacings, costs_of, files_of, read_rows
from jobs.targets import Out, Seed

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.encoders.encoder import Encoder


@dataclass(frozen=True)
class EvaluateLargeConfig:
    """What is compared with what.

    Args:
        images: slides or pictures, and .jsonl files of records that `medphantom large` printed.
        real: slides, pictures or folders of them.
        like: the reference that the images were laid out like.
        train: slides, pictures, or folders with or without manifest.csv.
        spacings: microns a pixel of files that do not say it, as PATTERN=MICRONS.
        microns_per_pixel: at which crops and copies are compared; None is the images'.
    """

    images: tuple[Path, ...]
    real: tuple[Path, ...]
    like: Path | None = None
    train: Path | None = None
    train_split: str = "train"
    encoder: str = "histo-encoder-mini"
    crop_size: int = 256
    patch_size: int = 128
    microns_per_pixel: float | None = None
    spacings: tuple[str, ...] = ()
    places: int = 400
    planted: int = 50
    seed: int = 0


def evaluate_large(config: EvaluateLargeConfig, drawn: Bars) -> dict[str, Any]:
    """Figures of large images, each beside the same of real ones.

    Raises:
        InvalidInput: there is nothing to compare, or it is too small for intervals.
        UnsafeFile: see `gen.data.slide.open_slide`.
        ModelRefused: see `gen.encoders.loading.load_encoder`.
    """
    from gen.encoders.loading import load_encoder

    encoder = load_encoder(config.encoder)
    with ExitStack() as stack:
        gallery = Gallery(stack, Spacings.of(config.spacings), config.microns_per_pixel)
        images = gallery.open(read_rows(config.images), "images")
        real = gallery.open(_rows(config.real, ""), "real images")
        training = _training(gallery, config)
        figures = {
            "encoder": encoder.id,
            "images": [str(each.path) for each in images],
            "real": [str(each.path) for each in real],
            "microns_per_pixel": gallery.microns_per_pixel,
            "crop_size": config.crop_size,
            "patch_size": config.patch_size,
            "seed": config.seed,
            "crop_frechet": _crop_frechet(images, real, encoder, config, drawn),
            "similarity": _similarity(images, encoder, config, drawn),
            **_edges(images, real, config, drawn),
            "copies": _copies(images, real, training, encoder, gallery, config, drawn),
            "cost": costs_of(images),
        }
        missing = [
            f"without --{option}, {figure} is not measured"
            for option, figure, given in (
                ("like", "similarity to the condition", config.like),
                ("train", "whether places are copies", config.train),
            )
            if given is None
        ]
        if len(figures["seams"]) == 1:
            missing.append("pictures are too small for seams of where pixels were decoded")
        few = _few_places(figures["copies"])
        return {**figures, "omissions": missing + gallery.lines() + few}


def _training(gallery: Gallery, config: EvaluateLargeConfig) -> list[Picture] | None:
    if config.train is None:
        return None
    rows = _rows((config.train,), config.train_split)
    return gallery.open(rows, "training images", strict=bool(config.spacings))


def _rows(sources: Sequence[Path], split: str) -> list[tuple[Path, dict[str, Any]]]:
    return [(path, {}) for source in sources for path in files_of(source, split)]


def _copies(
    images: Sequence[Picture],
    real: Sequence[Picture],
    training: Sequence[Picture] | None,
    encoder: "Encoder",
    gallery: Gallery,
    config: EvaluateLargeConfig,
    drawn: Bars,
) -> dict[str, Any] | None:
    if training is None:
        return None
    images, real, training = (
        gallery.large_enough(group, what, config.patch_size)
        for group, what in (
            (images, "images"),
            (real, "real images"),
            (training, "training images"),
        )
    )
    return find_copies(
        images, real, training, encoder, config.patch_size, config.places, config.planted,
        config.seed, drawn,
    )  # fmt: skip


def _few_places(copies: dict[str, Any] | None) -> list[str]:
    if copies is None or copies["false_alarm_rate"] <= FALSE_ALARMS:
        return []
    rate = copies["false_alarm_rate"]
    return [
        f"of {copies['real_places']} real places {100 * rate:.2g} % are called copies by mistake,"
        f" not {100 * FALSE_ALARMS:.2g} %: give more real tissue, or more --places"
    ]


def _crop_frechet(
    images: Sequence[Picture],
    real: Sequence[Picture],
    encoder: "Encoder",
    config: EvaluateLargeConfig,
    drawn: Bars,
) -> dict[str, Any]:
    from gen.metrics.crops import crop_distance, crop_features

    made, true = (
        crop_features(
            [each.view for each in group], encoder, config.crop_size, config.seed, drawn.bar(title)
        )
        for group, title in ((images, "cropping images"), (real, "cropping real images"))
    )
    found = crop_distance(made, true, config.seed)
    return {**asdict(found), "ratio": found.ratio, "crops_a_block": made.shape[1]}


def _similarity(
    images: Sequence[Picture], encoder: "Encoder", config: EvaluateLargeConfig, drawn: Bars
) -> dict[str, Any] | None:
    if config.like is None:
        return None
    from gen.data.slide import open_slide
    from gen.metrics.condition import cosines, field_of, similarity
    from gen.metrics.views import view_of

    report = drawn.bar("comparing places with their conditions")
    with open_slide(config.like) as slide:
        reference = view_of(slide)
        field = field_of(reference, encoder, config.patch_size)
        own = cosines(reference, field, encoder, config.patch_size)
    found = []
    for picture in images:
        found.append(cosines(picture.own, field, encoder, config.patch_size))
        report(len(found), len(images))
    return asdict(similarity(found, own, config.seed))


def _edges(
    images: Sequence[Picture], real: Sequence[Picture], config: EvaluateLargeConfig, drawn: Bars
) -> dict[str, Any]:
    """Sharpness, and seams by period in pixels: of the files, whatever their magnification."""
    import numpy as np

    from gen.metrics.seams import line_energies, score_of, seam_scores, sharpness

    seams: dict[str, Any] = {}
    for period in _periods([*images, *real], config.patch_size):
        report = drawn.bar(f"looking for seams every {period} pixels")
        energies = []
        for done, picture in enumerate([*images, *real], 1):
            energies.append(line_energies(picture.own, period))
            report(done, len(images) + len(real))
        made, true = (
            np.concatenate(each) for each in (energies[: len(images)], energies[len(images) :])
        )
        whole = {"images": score_of(made.sum(0)), "real": score_of(true.sum(0))}
        seams[str(period)] = {
            **asdict(seam_scores(made, true, config.seed)),
            "whole": {name: asdict(score) for name, score in whole.items()},
        }
    return {"sharpness": asdict(sharpness(made, true, config.seed)), "seams": seams}


def _periods(pictures: Sequence[Picture], patch_size: int) -> list[int]:
    """Of seams, in pixels: a patch, and what is decoded at once where pictures have room for it."""
    from gen.metrics.seams import PERIODS_A_BLOCK
    from pipelines.large_pixels import DECODED, DECODED_TWICE

    decoded = int((DECODED - DECODED_TWICE) * patch_size)
    side = min(min(picture.own.height, picture.own.width) for picture in pictures)
    has_room = side >= 2 * PERIODS_A_BLOCK * decoded  # for four blocks
    return [patch_size, decoded] if has_room else [patch_size]


def summary_of(figures: dict[str, Any]) -> str:
    """One line for people."""
    crops = figures["crop_frechet"]
    parts = [
        f"crop Fréchet distance {crops['distance']['value']:.3f}"
        f" (real against real {crops['floor']['value']:.3f})"
    ]
    if figures["similarity"] is not None:
        own, others, best = (
            figures["similarity"][name]["value"] for name in ("own", "others", "reference")
        )
        parts.append(
            f"cosine to the condition {own:.3f} (other places {others:.3f}, the reference"
            f" {best:.3f})"
        )
    sharp = figures["sharpness"]["distance"]["value"]
    parts.append(f"sharpness {sharp:.2f} of real")
    period, seams = next(iter(figures["seams"].items()))
    worst = seams["worst"]
    parts.append(
        f"worst seams every {period} pixels {worst['distance']['value']:.3f}"
        f" (real {worst['floor']['value']:.3f})"
    )
    if figures["copies"] is not None:
        found = figures["copies"]
        parts.append(
            f"copies {found['rate']['value']:.1%} of places (real {found['floor']['value']:.1%};"
            f" {found['recall']['none']['flagged']['value']:.0%} of planted ones found)"
        )
    return "; ".join(parts)


def command(
    images: Annotated[
        list[Path],
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="IMAGE...",
            help="Slides or pictures; or a .jsonl of what `medphantom large` printed, whose costs"
            " are passed on",
        ),
    ],
    real: Annotated[
        list[Path],
        typer.Option(exists=True, help="Real slide, picture or folder of them; repeatable"),
    ],
    like: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="What the images were laid out like"),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(exists=True, help="What the model was trained on: look for copies of it"),
    ] = None,
    train_split: Annotated[
        str, typer.Option(help="Rows of the training folder's manifest.csv")
    ] = "train",
    encoder: Annotated[
        str, typer.Option(help="Id or folder; --like needs the one that the model was made with")
    ] = "histo-encoder-mini",
    crop_size: Annotated[int, typer.Option(min=16, help="Pixels a side of crops")] = 256,
    patch_size: Annotated[
        int, typer.Option(min=16, help="Pixels a side of the model's patches")
    ] = 128,
    microns_per_pixel: Annotated[
        float | None,
        typer.Option(min=0.001, help="At which crops and copies are compared; as the first image"),
    ] = None,
    spacing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=MICRONS",
            help="Microns a pixel of files that do not say it, as 'tiles/kather_*=0.495';"
            " repeatable. With any, training files that none fits are left out",
        ),
    ] = None,
    places: Annotated[int, typer.Option(min=16, help="Places looked at for copies")] = 400,
    planted: Annotated[int, typer.Option(min=1, help="Copies of each kind made to be found")] = 50,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Measure large images of tissue against real ones.

    Crop Fréchet distance: do parts look like real parts? As near to 0 as its floor, which is that
    of real tissue to real tissue from other places, is as good as real.

    Similarity (--like): does each place show what the reference has there? The cosine lies between
    that to the conditions of other places and the reference's to itself.

    Sharpness: squared gradients over those of real images; below 1 is blur, or more glass.

    Seams: edges every patch, and every three quarters of one, against those elsewhere. 1 is none;
    the worst phase is above 1 by chance alone, as that of real images is.

    Copies (--train): places that are more like a training tile, in any of eight positions, than
    99 % of real places are; and how many planted copies are found. No finding is no proof.

    Intervals are over blocks of the images: they cover that other places might have been looked
    at, not that other slides or seeds might have been. Give several images for that.

    Examples:

    medphantom evaluate large like.ome.tif --real region.png --like region.png

    medphantom evaluate large runs.jsonl --real slides/ --train tissue/ --spacing 'a*.jpg=0.5'
    """
    config = EvaluateLargeConfig(
        images=tuple(images),
        real=tuple(real),
        like=like,
        train=train,
        train_split=train_split,
        encoder=encoder,
        crop_size=crop_size,
        patch_size=patch_size,
        microns_per_pixel=microns_per_pixel,
        spacings=tuple(spacing or ()),
        places=places,
        planted=planted,
        seed=seed,
    )
    with bars() as drawn:
        figures = evaluate_large(config, drawn)
    if out is not None:
        with atomic_file(out, overwrite=True) as stream:
            stream.write((json.dumps(figures, indent=1) + "\n").encode())
    Console(stderr=True).print(summary_of(figures), soft_wrap=True, highlight=False)
    typer.echo(json.dumps(figures))
