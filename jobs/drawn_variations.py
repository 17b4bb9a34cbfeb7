"""Variations of tiles: each drawn anew by a large-image model from its own embeddings, as PNG.

A file's name is the hash of all it depends on, so one that is there is the one wanted, and work
that was interrupted goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.bars import Report
from jobs.device import Precision, autocast
from jobs.large_record import large_record

if TYPE_CHECKING:  # torch is imported when something is drawn
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.provenance import Record
    from pipelines.large_image import LargeImagePipeline

_TOGETHER = 8  # tiles whose windows share forwards


@dataclass(frozen=True)
class VariationConfig:
    """How a tile is drawn anew."""

    model: str = "histo-mini"
    num_inference_steps: int = 25
    guidance_scale: float = 1.0
    microns_per_pixel: float = 0.5
    seed: int = 0
    mixed_precision: Precision = Precision.NO


class DrawnVariations:
    """The variations of tiles, of which those that are wanted and missing are drawn.

    Args:
        pipeline: on the device where it draws.
        config: how; its `seed`, a tile's content and a variation's number make the variation's.
        folder: of the files; made if missing.
    """

    def __init__(
        self, pipeline: "LargeImagePipeline", config: VariationConfig, folder: Path
    ) -> None:
        self._pipeline, self._config, self._folder = pipeline, config, folder
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, tile: "NDArray[np.uint8]", number: int) -> Path:
        """Where a variation of a tile lies, or will."""
        identity = json.dumps([self.record(tile, number).to_json(), self._pipeline.embedder.id])
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.png"

    def record(self, tile: "NDArray[np.uint8]", number: int) -> "Record":
        """Where a variation comes from; of the tile it names the hash of its pixels alone."""
        config = self._config
        source = hashlib.sha256(tile.tobytes()).digest()
        digest = hashlib.sha256(f"{source.hex()} {number} {config.seed}".encode()).digest()
        return large_record(
            self._pipeline,
            model=config.model,
            source="like",
            text="",
            source_digests=[source],
            seed=int.from_bytes(digest[:4], "big"),
            method="shift",
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            microns_per_pixel=config.microns_per_pixel,
            mixed_precision=config.mixed_precision.value,
            height=tile.shape[0],
            width=tile.shape[1],
        )

    def missing(
        self, tiles: "Sequence[NDArray[np.uint8]]", count: int
    ) -> "list[tuple[NDArray[np.uint8], int]]":
        """Tiles and the numbers, below `count`, of their variations that nobody has drawn yet."""
        wanted = [(tile, number) for tile in tiles for number in range(count)]
        return [each for each in wanted if not self.file(*each).exists()]

    def read(self, tile: "NDArray[np.uint8]", number: int) -> "NDArray[np.uint8]":
        """The pixels of a variation that was drawn, as large as the tile."""
        from gen.data.images import read_colour

        return read_colour(self.file(tile, number))

    def draw(
        self, missing: "Sequence[tuple[NDArray[np.uint8], int]]", report: Report
    ) -> Iterator[int]:
        """Draw a few at a time; after each time, how many are done."""
        for start in range(0, len(missing), _TOGETHER):
            self._draw_together(missing[start : start + _TOGETHER])
            done = min(start + _TOGETHER, len(missing))
            report(done, len(missing))
            yield done

    def _draw_together(self, wanted: "Sequence[tuple[NDArray[np.uint8], int]]") -> None:
        from PIL import Image

        from gen.data.atomic import atomic_file
        from gen.engine import Engine
        from pipelines.tile_variation import tile_variation

        on_cpu = self._pipeline.unet.device.type == "cpu"
        engine = Engine(self._pipeline.networks, 16 if on_cpu else 64, pad_rows=False)
        records = [self.record(*each) for each in wanted]
        tickets = [
            engine.submit(
                tile_variation(
                    self._pipeline,
                    tile,
                    record.seed,
                    num_inference_steps=self._config.num_inference_steps,
                    guidance_scale=self._config.guidance_scale,
                    microns_per_pixel=self._config.microns_per_pixel,
                )
            )
            for (tile, _), record in zip(wanted, records, strict=True)
        ]
        with autocast(self._config.mixed_precision):
            engine.drain()
        for each, record, ticket in zip(wanted, records, tickets, strict=True):
            with atomic_file(self.file(*each), overwrite=True) as stream:
                picture = Image.fromarray(ticket.result())
                picture.save(stream, format="PNG", pnginfo=record.to_png_info())
