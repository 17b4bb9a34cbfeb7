"""WebDataset: shards that a training loop streams, `webdataset.WebDataset("train-{0..9}.tar")`."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from gen.data.samples import TRAIN, Sample, write_tar

SHARD_BYTES = 2**30  # what readers of WebDataset are tuned to


def write_webdataset(samples: Iterable[Sample], out: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """train-000000.tar and so on, of about `shard_bytes` each."""
    coming = iter(samples)
    for index, first in enumerate(coming):
        with (out / f"{TRAIN}-{index:06d}.tar").open("wb") as stream:
            write_tar(stream, _up_to(shard_bytes, chain([first], coming)))


def _up_to(limit: int, coming: Iterator[Sample]) -> Iterator[Sample]:
    """Samples until they fill a shard; the others stay in the iterator."""
    taken = 0
    for sample in coming:
        yield sample
        taken += sum(map(len, sample.files.values()))
        if taken >= limit:
            return
