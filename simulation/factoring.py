"""Which clients travel together: big packs while there is much to do, small ones near the end of a round.

Hummel, Schonberg and Flynn, "Factoring: A Method for Scheduling Parallel Loops", Communications of the ACM 35(8), 1992:
work is handed out in batches, each of half of what is left in equal packs for all workers, so that those that fall
behind early are evened out later at the price of few messages. Here packs are equal in load, not in number; a batch
takes the longest clients that are left, and spreads them longest first (Graham, "Bounds on Multiprocessing Timing
Anomalies", 1969). Once a batch's packs would be shorter than what a message is worth, the rest is one pack per worker.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Client = tuple[str, float]  # its id and its load


def packs(clients: Sequence[Client], workers: int, least_load: float) -> list[list[str]]:
    """Return the packs in the order in which they are to be handed out; each has its longest client first.

    ``least_load`` bounds a pack from below, in the unit of the clients' loads. Equal arguments give equal packs,
    whatever the order of the clients.
    """
    left = sorted(clients, key=lambda client: (-client[1], client[0]))
    found: list[list[str]] = []
    remaining = sum(load for _, load in left)
    while left and remaining / (2 * workers) >= least_load > 0:
        batch: list[Client] = []
        taken = 0.0
        while taken < remaining / 2:
            batch.append(left[len(batch)])
            taken += batch[-1][1]
        found += spread(batch, workers)
        left, remaining = left[len(batch) :], remaining - taken
    return found + spread(left, workers)


def spread(clients: Sequence[Client], workers: int) -> list[list[str]]:
    """Give each client, in the given order, to the worker with the least to do; return the packs that are not empty.

    Heaviest first, ties by worker.
    """
    found: list[list[str]] = [[] for _ in range(workers)]
    heap = [(0.0, worker) for worker in range(workers)]
    for client, load in clients:
        busy, worker = heap[0]
        found[worker].append(client)
        heapq.heapreplace(heap, (busy + load, worker))
    by_load = sorted(heap, key=lambda item: (-item[0], item[1]))
    return [found[worker] for _, worker in by_load if found[worker]]
