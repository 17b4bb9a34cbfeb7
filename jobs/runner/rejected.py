"""A few pictures that gates refused, in OUT/rejected: the report shows what was kept out.

They come from shards all over the job, and are for people only: no export has them.
"""

import contextlib
from pathlib import Path

from gen.data.atomic import atomic_file
from jobs.runner.items import Item
from jobs.runner.spec import Job

FOLDER = "rejected"
NUM_PICTURES = 12  # of a job


class Rejected:
    """Keeps the first refused pictures of a shard, if it is one of those that keep some."""

    def __init__(self, out: Path, job: Job, shard: int) -> None:
        stride = -(-job.num_shards // NUM_PICTURES)
        num_keeping = -(-job.num_shards // stride)
        self._left = -(-NUM_PICTURES // num_keeping) if shard % stride == 0 else 0
        self._folder = out / FOLDER

    @property
    def full(self) -> bool:
        """Whether it keeps no more."""
        return self._left == 0

    def keep(self, item: Item, png: bytes) -> None:
        """Keep what an attempt at an item made; one of each."""
        self._left -= 1
        with contextlib.suppress(OSError):  # a full disk shows where it matters
            self._folder.mkdir(exist_ok=True)
            with atomic_file(self._folder / f"{item.key}.png", overwrite=True) as stream:
                stream.write(png)
