"""What of the requests of one moment is sent in a simulated world, and when the reply to each arrives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
from flwr.app import ArrayRecord, Message

from simulation.conditions import Conditions
from simulation.cut import Cut
from simulation.fates import Terms, fates
from strategies import wire
from strategies.admission import Reason

DECIMALS = 6  # of a second: what is due at one instant is so however its time was added up


def cuts(
    requests: Sequence[Message], conditions: Conditions, examples: Mapping[str, int], now: float
) -> Iterator[tuple[Cut, float]]:
    """Yield each request with who is not run, and the simulated time at which its reply arrives.

    ``examples`` are those that clients said to have, 1 where they did not. The requests of one round compete for its
    goal.
    """
    for _, together in groupby(requests, key=lambda request: wire.config_of(request).get(wire.ROUND)):
        yield from _cuts_of_round(list(together), conditions, examples, now)


def _cuts_of_round(
    requests: Sequence[Message], conditions: Conditions, examples: Mapping[str, int], now: float
) -> Iterator[tuple[Cut, float]]:
    terms = _terms(requests[0], conditions)
    packs = [wire.text_list(wire.config_of(request), wire.CLIENTS) for request in requests]
    clients = [client for pack in packs for client in pack]
    seeds = [seed for request in requests for seed in wire.int_list(wire.config_of(request), wire.SEEDS)]
    counts = np.array([max(1, examples.get(client, 1)) for client in clients], np.float64)
    size = _bytes_of(wire.arrays_of(requests[0].content, wire.ARRAYS))
    work = conditions.work(clients, np.array(seeds, np.uint64), counts, size, now)
    fate = fates(work, terms)
    details = _details(fate.reasons, work.total.tolist(), terms)
    start = 0
    for request, pack in zip(requests, packs, strict=True):
        part = slice(start, start + len(pack))
        cut = Cut(request, fate.reasons[part], fate.shares[part].tolist(), details[part])
        yield cut, round(now + float(fate.answered[part].max()), DECIMALS)
        start += len(pack)


def _terms(request: Message, conditions: Conditions) -> Terms:
    config = wire.config_of(request)
    deadline = wire.number(config, wire.DEADLINE) if wire.DEADLINE in config else 0.0
    goal = int(wire.number(config, wire.GOAL)) if wire.GOAL in config else 0
    return Terms(deadline, goal, conditions.patience, conditions.partial)


def _bytes_of(record: ArrayRecord) -> float:
    """Return how many bytes the elements of the arrays take; nothing is serialized for it."""
    return float(sum(np.dtype(array.dtype).itemsize * np.prod(array.shape) for array in record.values()))


def _details(reasons: Sequence[str], seconds: Sequence[float], terms: Terms) -> list[str]:
    key = "round-deadline" if terms.limit == terms.deadline else "round-timeout"
    has = f"simulated seconds, but it has {terms.limit:g} ('{key}')"
    return [
        f"its work takes {took:.3g} {has}" if why == Reason.LATE else ""
        for why, took in zip(reasons, seconds, strict=True)
    ]
