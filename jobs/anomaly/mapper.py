"""Maps of many scans by one model: what is asked of it, and how planes share its forwards."""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.anomaly.calibration import HEALTHY_PROMPT, MethodName
from jobs.anomaly.sources import Scan
from jobs.device import Precision, precise, rows_at_once
from jobs.window import windowed

if TYPE_CHECKING:  # torch is imported when maps are made, not when help is read
    import numpy as np
    from numpy.typing import NDArray

    from gen.data.provenance import Record
    from gen.types import Process
    from pipelines.outputs import AnomalyMap


@dataclass(frozen=True)
class MapsConfig:
    """What maps are made with, and where they go.

    Args:
        out: folder.
        threshold: what maps must exceed to be marked; None takes it from the model's card.
        threshold_fpr: share of healthy pictures in which anything would then be marked.
        formats: what is written beside each map, see `jobs.anomaly.files`; None is what suits a
            source.
        overwrite: replace results of other settings.
    """

    out: Path
    method: MethodName = "autopaint"
    threshold: float | None = None
    threshold_fpr: float = 0.05
    model: str = "cxr-mini"
    prompt: str = HEALTHY_PROMPT
    seed: int = 0
    formats: tuple[str, ...] | None = None
    mixed_precision: Precision = Precision.NO
    overwrite: bool = False
    allow_download: bool = False


@dataclass(frozen=True, eq=False)
class Mapped:
    """A scan with a map of each of its planes, or the error that came instead."""

    scan: Scan
    maps: "list[AnomalyMap]"
    error: Exception | None = None


class Mapper:
    """A model that is loaded once.

    Raises:
        InvalidInput: no threshold is known for the model, or the one given breaks its rule.
        ModelRefused: see `gen.store.loading.load_components`.
    """

    def __init__(self, config: MapsConfig) -> None:
        import torch

        from pipelines.anomaly import AnomalyPipeline

        self.config = config
        self.pipeline = AnomalyPipeline.from_pretrained(
            config.model, torch_dtype=torch.float32, allow_download=config.allow_download
        )
        self.threshold = self.pipeline.threshold(
            config.method, config.threshold, config.threshold_fpr
        )
        self.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def settings(self) -> dict[str, str | int | float | bool | None]:
        """All that decides a map, but the scan."""
        config = self.config
        return {
            "model": config.model,
            "weight_sha256": self.pipeline.weight_sha256,
            "method": config.method,
            "threshold": self.threshold,
            "false_positive_rate": config.threshold_fpr if config.threshold is None else None,
            "suspicious": self.pipeline.suspicious if config.method == "autopaint" else None,
            "prompt": config.prompt,
            "seed": config.seed,
            "mixed_precision": config.mixed_precision.value,
        }

    @property
    def analysis(self) -> str:
        """The settings in one line."""
        return json.dumps(self.settings, sort_keys=True)

    def map(self, scans: Iterable[Scan]) -> Iterator[Mapped]:
        """Map every scan, in order; one that fails carries its error, and the others go on.

        Planes of all share forwards, and scans are taken from when there is room for more.
        """
        from gen.engine import Engine

        networks = precise(self.pipeline.networks, self.config.mixed_precision)
        at_once = rows_at_once()
        coming: deque[tuple[Scan, int]] = deque()

        def processes() -> "Iterator[Process[AnomalyMap]]":
            for scan in scans:
                for index, plane in enumerate(scan.planes):
                    coming.append((scan, index))
                    yield self.process(plane, self.config.seed + index)

        maps: list[AnomalyMap] = []
        error: Exception | None = None
        for ticket in windowed(Engine(networks, at_once), processes(), at_once):
            scan, index = coming.popleft()
            try:
                maps.append(ticket.result())
            except Exception as failure:  # whatever it is, it is this scan's alone
                error = error or failure
            if index + 1 == len(scan.planes):
                yield Mapped(scan, maps, error)
                maps, error = [], None

    def process(self, plane: "NDArray[np.float32]", seed: int) -> "Process[AnomalyMap]":
        """The map of a plane (H, W) in [0, 1], on its pixels."""
        from gen.data.model_square import ModelSquare
        from pipelines.anomaly import on_source

        config, (height, width) = self.config, plane.shape
        square = ModelSquare(height, width, self.pipeline.size)
        small = square.to_model(plane)
        found = yield from self.pipeline.process(small, config.method, config.prompt, seed, square)
        return on_source(plane, square, found, self.threshold)

    def record(self, scan: Scan) -> "Record":
        """Where the results of a scan come from."""
        from gen.data.provenance import Record

        settings: dict[str, Any] = self.settings
        apart = ("model", "weight_sha256", "prompt", "seed")
        _, height, width = scan.planes.shape
        return Record(
            task="anomaly",
            model=settings["model"],
            weight_sha256=settings["weight_sha256"],
            prompt=settings["prompt"],
            seed=settings["seed"],
            scheduler=type(self.pipeline.scheduler).__name__,
            num_inference_steps=self.pipeline.num_inference_steps[self.config.method],
            guidance_scale=1.0,
            height=height,
            width=width,
            settings={name: value for name, value in settings.items() if name not in apart},
            source_sha256=scan.sha256,
        )
