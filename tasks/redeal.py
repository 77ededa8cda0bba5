"""Deals pools of examples to clients anew, so that each has enough, whenever that is possible at all.

Every client keeps one example of each pool that is open to it. What is left of the pools has to cover what the clients
still lack, each from its own pools: a flow from the pools through the clients. The largest one covers everything if and
only if that is possible (Ford and Fulkerson 1956, "Maximal flow through a network"). What remains is spread evenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

Indices = npt.NDArray[np.int64]


class CannotFillUpError(ValueError):
    """Not every client can be filled up, however one deals. ``client`` is the number of one that is left short."""

    def __init__(self, client: int) -> None:
        super().__init__(f"client {client} cannot be filled up")
        self.client = client


def redealt(
    parts: Sequence[Indices],
    pool_of: Indices,
    open_pools: Sequence[Sequence[int]],
    least: int,
    random: np.random.Generator,
) -> list[Indices]:
    """Return new parts of the same examples: each client has ``least`` or more, of all pools open to it and no others.

    Each example is in one pool (``pool_of`` [examples]). Raises `CannotFillUpError`.
    """
    pools = sorted({pool for opened in open_pools for pool in opened})
    holders = [[client for client, opened in enumerate(open_pools) if pool in opened] for pool in pools]
    dealt = np.concatenate(parts)
    examples = [random.permutation(dealt[pool_of[dealt] == pool]) for pool in pools]
    for rows, having in zip(examples, holders, strict=True):
        if len(rows) < len(having):
            raise CannotFillUpError(having[len(rows)])
    lacking = [max(0, least - len(opened)) for opened in open_pools]
    flow = _flow([len(rows) - len(having) for rows, having in zip(examples, holders, strict=True)], holders, lacking)
    short = np.flatnonzero(flow.sum(axis=0) < lacking)
    if len(short):
        raise CannotFillUpError(int(short[0]))
    pieces: list[list[Indices]] = [[] for _ in parts]
    for rows, having, sent in zip(examples, holders, flow, strict=True):
        sizes = 1 + sent[having]
        sizes += np.diff(np.linspace(0, len(rows) - sizes.sum(), len(having) + 1).astype(np.int64))
        for client, piece in zip(having, np.split(rows, np.cumsum(sizes)[:-1]), strict=True):
            pieces[client].append(piece)
    return [np.concatenate(piece) for piece in pieces]


def _flow(spare: Sequence[int], holders: Sequence[Sequence[int]], lacking: Sequence[int]) -> Indices:
    """Return how many examples each pool sends to each client, [pools, clients]: as many as can be sent in all."""
    pools, clients = len(spare), len(lacking)
    source, sink = pools + clients, pools + clients + 1
    edges = [(source, pool, number) for pool, number in enumerate(spare)]
    edges += [(pool, pools + client, spare[pool]) for pool, having in enumerate(holders) for client in having]
    edges += [(pools + client, sink, number) for client, number in enumerate(lacking)]
    start, end, capacity = np.array(edges, np.int32).T
    network = sparse.csr_array((capacity, (start, end)), shape=(sink + 1, sink + 1))
    found = csgraph.maximum_flow(network, source, sink).flow
    return found[:pools, pools : pools + clients].toarray().astype(np.int64)  # type: ignore[no-any-return]
