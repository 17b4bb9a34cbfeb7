"""Many small operations at once, not each on several threads: twice as fast on two cores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def side_by_side() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of whose torch operations uses one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
