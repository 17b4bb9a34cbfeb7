"""Look images up in a set, to find which are copies of its images, and how many would be found."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gen.encoders.encoder import Encoder
from gen.metrics.calibration import Calibration
from gen.metrics.copies import Described, Matches, TrainingIndex, index_training, match
from gen.metrics.feature_cache import Thumbnails, encode_collection, read_thumbnails
from gen.metrics.planted import ALTERATIONS, planted_recall
from jobs.audit.schema import Interval, Model, Planted
from jobs.audit.sets import ImageSet
from jobs.audit.stages import Stages
from jobs.bars import Bars

SIDE = 128  # of the pictures that are laid over one another, which is done at half of it
PLANTED_SIDE = 256  # copies are altered before they are made small
CHUNK = 1000  # images that a run which is cut off looks up again
RATES = (0.01, 0.02, 0.05, 0.1)  # of false alarms; the first that there are images enough for


class _Found(Model):
    scores: list[float]
    rows: list[int]


@dataclass(frozen=True)
class Search:
    """Looks images up in `searched`; the index is built when something is not yet known.

    Args:
        searched: the set that copies would be of.
        encoder, cache, seed: see `jobs.audit.sets.Inputs`.
        stages: what an earlier run has found out.
        bars: where progress is drawn.
    """

    searched: ImageSet
    encoder: Encoder
    cache: Path
    stages: Stages
    bars: Bars
    seed: int = 0

    @cached_property
    def index(self) -> TrainingIndex:
        """Of the images of `searched` that can be read."""
        part = self.searched.part(self.thumbnails.rows)
        return index_training(self.thumbnails.images, part.features, part.patients)

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Of the images of `searched`."""
        report = self.bars.bar("pictures to search among")
        return read_thumbnails(self.searched.items, SIDE, report)

    def matches(self, what: str, images: ImageSet, *, of_patients: bool) -> Matches:
        """The best match of each image; with `of_patients`, one of another patient."""
        chunks = range(0, len(images), CHUNK)
        report = self.bars.bar(f"searching for copies of {what} images")
        found = []
        for number, start in enumerate(chunks):
            part = images.part(np.arange(start, min(start + CHUNK, len(images))))
            patients = part.patients if of_patients else None
            found.append(
                self.stages.run(
                    f"copies-{what}-{number:04d}",
                    _Found,
                    lambda part=part, patients=patients: self._look_up(part, patients),  # type: ignore[misc]
                )
            )
            report(start + len(part), len(images))
        return Matches(
            np.concatenate([each.scores for each in found]),
            np.concatenate([each.rows for each in found]).astype(np.intp),
        )

    def _look_up(self, images: ImageSet, patients: list[str] | None) -> _Found:
        flipped = encode_collection(images.items, self.encoder, self.cache, flipped=True)
        pictures = read_thumbnails(images.items, SIDE).images
        described = Described(pictures, images.features, flipped.features)
        found = match(described, self.index, patients)
        return _Found(scores=found.scores.tolist(), rows=found.rows.tolist())

    def planted(self, calibration: Calibration, count: int) -> dict[str, Planted]:
        """Recall by kind of alteration, of copies of `count` images slipped in for the purpose."""
        return self.stages.run(
            "copies-planted", dict[str, Planted], lambda: self._plant(calibration, count), count
        )

    def _plant(self, calibration: Calibration, count: int) -> dict[str, Planted]:
        order = np.random.default_rng(self.seed).permutation(len(self.searched))
        rows = np.sort(order[:count])
        pictures = read_thumbnails(self.searched.part(rows).items, PLANTED_SIDE)
        report = self.bars.bar("searching for planted copies")
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            report(done, len(ALTERATIONS) * len(rows))

        recall = planted_recall(
            pictures.images, rows[pictures.rows].tolist(), self.index, calibration,
            self.encoder, self.seed, advance,
        )  # fmt: skip
        return {
            name: Planted(**Interval.of(each.flagged).model_dump(), images=len(pictures.rows))
            for name, each in recall.items()
        }
