"""Keep what a forward frees for the next one, instead of giving it back to the system."""

import ctypes
import sys

# numbers of mallopt(3), from <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep up to `KEPT_BYTES` of freed memory in this process.

    Every forward on a CPU allocates activations of the same megabytes. By default they go back to
    the system after it and come back page by page. Threads that start later share the memory kept.

    Returns:
        Whether the C library has taken the settings; only glibc knows them.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD,
        M_TRIM_THRESHOLD: KEPT_BYTES,
        M_ARENA_MAX: 1,  # the arenas of other threads never keep more than 64 MB
    }
    return all(mallopt(name, value) for name, value in settings.items())
