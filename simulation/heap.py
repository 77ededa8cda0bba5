"""Let a process keep the memory that it frees: a round asks for the vectors that the one before it gave back.

By default the C library hands large blocks back to the system at once, which clears every page anew when they are asked
for again: of the processor time that the driver takes for a round of an MLP, a third.
"""

from __future__ import annotations

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's parameters: see mallopt(3)
MOST_KEPT = 256 * 2**20  # bytes, free, at the end of the heap
LARGEST_KEPT = 32 * 2**20  # bytes: the largest block that glibc lets lie in the heap at all


def keep_freed_memory() -> bool:
    """Keep up to `MOST_KEPT` bytes, from now on; return whether the C library can: glibc does, others need not."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(TRIM_THRESHOLD, MOST_KEPT) and mallopt(MMAP_THRESHOLD, LARGEST_KEPT))
    return False
