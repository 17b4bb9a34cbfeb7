"""One worker of a job: an actor of Ray Data that holds a maker, or the same in this process.

Nothing leaves it but numbers: an exception that Ray writes into its logs might quote a prompt or a
path, so what goes wrong is told as an outcome.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput, MedphantomError
from jobs.device import peak_mb
from jobs.runner.deaths import Watch
from jobs.runner.spec import read_job

if TYPE_CHECKING:  # torch is imported where images are made
    from jobs.runner.maker import Maker

HOPELESS = "workers die before they make anything, as for want of memory"
SHARDS_AT_ONCE = 2  # the end of one shard and the begin of the next share forwards


@dataclass(frozen=True)
class Outcome:
    """What came of a shard.

    Args:
        made, failed: items of it.
        began, ended: unix seconds.
        worker: its process.
        peak_mb: the most memory that it has had.
        stop: why the job cannot go on; empty if it can. The shard is not made then.
    """

    shard: int
    made: int = 0
    failed: int = 0
    began: float = 0.0
    ended: float = 0.0
    worker: int = 0
    peak_mb: float = 0.0
    stop: str = ""


class ShardWorker:
    """Makes shards of a job; its model is loaded for the first one."""

    def __init__(self, out: str, threads: int | None) -> None:
        self._out, self._threads = Path(out), threads
        self._maker: Maker | None = None
        self._loading = threading.Lock()
        self._watch = Watch(SHARDS_AT_ONCE)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Outcomes by column, of the shards in a column."""
        outcomes = [asdict(self.make(int(shard))) for shard in batch["shard"]]
        return {name: [each[name] for each in outcomes] for name in outcomes[0]}

    def make(self, shard: int) -> Outcome:
        """Make one shard."""
        try:
            with self._watch.over(self._out, shard) as suspicion:
                if suspicion.hopeless:
                    return Outcome(shard, stop=HOPELESS)
                maker = self._loaded()
                began = time.time()
                note = maker.make(shard, suspicion)
            return Outcome(
                shard, note.num_made, note.num_failed, began, time.time(), os.getpid(), peak_mb()
            )
        except OSError as error:
            return Outcome(shard, stop=f"cannot write: {error.strerror or type(error).__name__}")
        except MedphantomError as error:
            return Outcome(shard, stop=str(error))
        except Exception as error:
            return Outcome(shard, stop=f"{type(error).__name__} in a worker")

    def close(self) -> None:
        """Stop what is under way."""
        if self._maker is not None:
            self._maker.close()

    def _loaded(self) -> "Maker":
        from jobs.runner.maker import Maker

        with self._loading:
            if self._maker is None:
                job = read_job(self._out)
                if job is None:
                    raise InvalidInput("the folder of the job is gone, or not there on this host")
                self._maker = Maker(self._out, job, threads=self._threads)
            return self._maker


def make_here(out: Path, shards: Sequence[int], threads: int | None) -> Iterator[Outcome]:
    """Make shards in this process; outcomes come as they are done."""
    worker = ShardWorker(str(out), threads)
    pool = ThreadPoolExecutor(SHARDS_AT_ONCE, "shards")
    coming = iter(shards)
    making = {pool.submit(worker.make, shard) for shard in islice(coming, SHARDS_AT_ONCE)}
    try:
        while making:
            done, making = wait(making, return_when=FIRST_COMPLETED)
            making |= {pool.submit(worker.make, shard) for shard in islice(coming, len(done))}
            for each in done:
                yield each.result()
    finally:
        worker.close()
        pool.shutdown(cancel_futures=True)
