"""Fills up clients that a partition left with too few examples, from the clients that have most."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.redeal import redealt

Pools = npt.NDArray[np.int64]


def top_up(
    parts: Sequence[npt.NDArray[np.int64]], pool_of: Pools, open_pools: Sequence[Sequence[int]], least: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Return the parts with every client at ``least`` examples or more.

    Each example is in one pool (``pool_of`` [examples]), and a client takes only from the pools open to it: with one
    pool for everything, anything; with a pool per class, the classes it has. Needy clients are filled up in the order
    of their numbers, an example at a time, each time by the client that then has most examples (the lower number of
    equals), which gives one at random. A giver stays above or at ``least`` and keeps one of the pool. Takes time
    proportional to the examples, and logarithmic in the clients for every example moved. Where that ends with nobody
    who can give, though giver and needy could be brought together through others, all is dealt anew
    (`tasks.redeal`). Raises `CannotFillUpError` where no way of dealing gives every client enough.
    """
    needy = [client for client, part in enumerate(parts) if len(part) < least]
    if not needy:
        return list(parts)
    random = np.random.default_rng(seed)
    givers = _Givers(parts, pool_of, least, random)
    filled = list(parts)
    for client in needy:
        taken = [givers.give(open_pools[client]) for _ in range(least - len(parts[client]))]
        if None in taken:
            return redealt(parts, pool_of, open_pools, least, random)
        filled[client] = np.concatenate([parts[client], np.asarray(taken, np.int64)])
    for client, part in givers.remaining():
        filled[client] = part
    return filled


class _Givers:
    """The clients with more than ``least`` examples: per pool, a heap with the largest client on top."""

    def __init__(
        self, parts: Sequence[npt.NDArray[np.int64]], pool_of: Pools, least: int, random: np.random.Generator
    ) -> None:
        self._least = least
        self._random = random
        self._held: dict[int, dict[int, list[int]]] = {}
        self._sizes: dict[int, int] = {}
        self._heaps: dict[int, list[tuple[int, int]]] = {}
        for client, part in enumerate(parts):
            if len(part) > least:
                self._add(client, part, pool_of[part])
        for heap in self._heaps.values():
            heapq.heapify(heap)

    def _add(self, client: int, part: npt.NDArray[np.int64], pools: Pools) -> None:
        self._sizes[client] = len(part)
        self._held[client] = {int(pool): part[pools == pool].tolist() for pool in np.unique(pools)}
        for pool in self._held[client]:
            self._heaps.setdefault(pool, []).append((-len(part), client))

    def give(self, pools: Sequence[int]) -> int | None:
        """Take an example out of one of the pools; None if nobody can give one."""
        offers = [(*top, pool) for pool in pools if (top := self._largest(pool)) is not None]
        if not offers:
            return None
        _, giver, pool = min(offers)
        held = self._held[giver][pool]
        self._sizes[giver] -= 1
        return held.pop(int(self._random.integers(len(held))))

    def _largest(self, pool: int) -> tuple[int, int] | None:
        """Return (-size, number) of the largest client that can give from a pool, dropping what is out of date."""
        heap = self._heaps.get(pool, [])
        while heap:
            entry = heap[0]
            giver = entry[1]
            size = self._sizes[giver]
            if size <= self._least or len(self._held[giver][pool]) < 2:
                heapq.heappop(heap)
            elif entry[0] != -size:
                heapq.heapreplace(heap, (-size, giver))
            else:
                return entry
        return None

    def remaining(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Return what the givers have left."""
        return [
            (client, np.concatenate([np.asarray(p, np.int64) for p in held.values()]))
            for client, held in self._held.items()
        ]
