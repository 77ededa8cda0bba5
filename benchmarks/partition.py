"""Seconds to deal 60,000 labels to 10,000 clients, and to read the result from the cache.

    uv run python -m benchmarks.partition

Median of five; each time with another seed, so that nothing comes from the cache that should not.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from tasks.partition import KINDS, Partition, partition_indices

RUNS = 5
CLIENTS = 10_000


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    os.environ["FEDKERAS_CACHE"] = tempfile.mkdtemp(prefix="fedkeras-benchmark-")
    labels = np.random.default_rng(0).integers(0, 10, 60_000)
    writers = np.arange(len(labels)) % CLIENTS
    partition_indices(labels[:100], Partition("iid", 10))  # imports flwr-datasets
    print("| partition | dealt (s) | from the cache (s) |\n|---|---|---|")
    for kind in KINDS:
        cuts = [Partition(kind, CLIENTS, seed=seed) for seed in range(RUNS)]
        dealt, kept = (
            statistics.median(seconds(lambda cut=cut: partition_indices(labels, cut, writers)) for cut in cuts)
            for _ in range(2)
        )
        print(f"| {kind} | {dealt:.2f} | {kept:.3f} |", flush=True)


if __name__ == "__main__":
    main()
