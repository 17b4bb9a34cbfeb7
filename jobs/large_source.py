"""What a large image shall show, and how large it is, from what `medphantom large` was given."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported when images are made
    import torch

    from gen.embedding_field import EmbeddingField
    from gen.known_region import KnownRegion
    from gen.types import Process
    from jobs.large import LargeConfig
    from pipelines.large_image import LargeImagePipeline

DEFAULT_SIZE = (2048, 2048)


class Source(StrEnum):
    """What a field of embeddings comes from."""

    LIKE = "like"
    VARIATION = "variation"
    TEXT = "text"
    KEEP = "keep"


def source_of(
    like: Path | None, variation: list[Path] | None, text: str | None, keep: Path | None
) -> Source:
    """What says what is shown.

    Raises:
        InvalidInput: it is not one thing.
    """
    given = {Source.LIKE: like, Source.VARIATION: variation, Source.TEXT: text}
    sources = [source for source, value in given.items() if value]
    if len(sources) > 1 or not (sources or keep):
        raise InvalidInput(
            "give exactly one of --like IMAGE, --variation IMAGE and --text WORDS, or --keep IMAGE "
            "to go on with its own tissue"
        )
    return sources[0] if sources else Source.KEEP


def size_of(config: "LargeConfig") -> tuple[int, int]:
    """(width, height) that was asked for, or else that of the image to be like."""
    from gen.data.slide import open_slide

    if config.size is not None or config.source is not Source.LIKE:
        return config.size or DEFAULT_SIZE
    with open_slide(config.images[0]) as slide:
        return slide.width, slide.height


def read_known(config: "LargeConfig", height: int, width: int) -> "KnownRegion | None":
    """The real picture that is kept, in its place: the middle, if none is named.

    Raises:
        InvalidInput: mask and picture differ in size, or the picture does not fit.
    """
    from gen.data.images import read_colour
    from gen.known_region import KnownRegion

    if config.keep is None:
        return None
    pixels = read_colour(config.keep)
    rows, columns = pixels.shape[:2]
    left, top = config.keep_at or (max(0, width - columns) // 2, max(0, height - rows) // 2)
    mask = None if config.keep_mask is None else read_colour(config.keep_mask).max(axis=2) > 127
    return KnownRegion(pixels, top, left, mask)


def find_field(
    pipeline: "LargeImagePipeline",
    config: "LargeConfig",
    height: int,
    width: int,
    generator: "torch.Generator",
    known: "KnownRegion | None" = None,
) -> "Process[EmbeddingField]":
    """The field of embeddings that the source asks for; a slide is read region by region."""
    from gen.data.slide import open_slide

    if config.source is Source.LIKE:
        with open_slide(config.images[0]) as slide:
            return (yield from pipeline.field_like(slide.read, slide.height, slide.width))
    if config.source is Source.KEEP and known is not None:
        return (yield from pipeline.field_around(known, height, width, generator))
    if config.source is Source.TEXT:
        words = pipeline.field_from_text(config.text, height, width, generator=generator)
        return (yield from words)
    pictures = []
    for path in config.images:
        with open_slide(path) as slide:
            pictures.append(slide.read(0, 0, slide.height, slide.width))
    return (yield from pipeline.field_varied(pictures, height, width, generator))
