"""How often each client was asked to take part: what privacy costs a client where it pays for itself alone.

In the ledger of a run (`strategies.privacy.budget`) these are three more arrays, so that a checkpoint holds them, and
what is written ahead of a round. Who is asked counts, whatever came of it: a reply that was lost may have been seen.

What taking part costs a client's single examples goes by how many it has (`strategies.privacy.example_level`), and that
may change: so it is told by how many it had when it was asked. For a client that does not say no number stands in: that
of a single example is not the worst, as with one more than a batch holds there are two steps instead of one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from strategies.population import Population
from strategies.updates import State

PARTICIPANTS, EXAMPLES, PARTICIPATIONS = "participants", "participants-examples", "participations"
"""Names of the arrays, a row for each client and number of examples with which it was ever asked, sorted: the client,
str [rows], its examples, int64 [rows], and how often it was asked so, int64 [rows]."""
UNTOLD = -1
"""Stands for the number of examples of a client that does not say, which is not 0: that has none."""

Asked = Mapping[int, int]
"""In how many rounds a client was asked, by the number of examples that it had then: each is accounted as it was."""


def examples_of(population: Population, cohort: Iterable[str]) -> dict[str, int]:
    """Return how many examples each of these clients has now, `UNTOLD` of those that do not say."""
    cohort = list(cohort)
    return {**dict.fromkeys(cohort, UNTOLD), **population.described(cohort)}


def after(ledger: State, cohort: Mapping[str, int]) -> State:
    """Return the arrays once these clients are asked, each of them once, with so many examples.

    Rows that are there are looked up and new ones put between, so that few who are asked cost little of a large ledger.
    """
    asked = sorted(cohort.items())
    names = np.array([client for client, _ in asked], dtype=np.str_)
    sizes = np.array([examples for _, examples in asked], dtype=np.int64)
    clients, examples, times = _arrays(ledger)
    first, last = (np.searchsorted(clients, names, side) for side in ("left", "right"))
    rows = np.array(list(map(partial(bisect_left, examples), sizes, first, last)), dtype=np.int64)
    new = rows == last
    new[~new] = examples[rows[~new]] != sizes[~new]
    times = times.copy()
    times[rows[~new]] += 1
    clients = clients.astype(np.promote_types(clients.dtype, names.dtype), copy=False)  # else long names are cut
    return {
        PARTICIPANTS: np.insert(clients, rows[new], names[new]),
        EXAMPLES: np.insert(examples, rows[new], sizes[new]),
        PARTICIPATIONS: np.insert(times, rows[new], 1),
    }


def most(ledger: State) -> int:
    """Return how often the client was asked that was asked most often, 0 where nobody was."""
    clients, _, times = _arrays(ledger)
    if len(clients) == 0:
        return 0
    starts = np.flatnonzero(np.append(True, clients[1:] != clients[:-1]))
    return int(np.add.reduceat(times, starts).max())


def by_client(ledger: State) -> Mapping[str, Asked]:
    """Return how often each client was asked, by how many examples; those that never were do not appear."""
    asked: dict[str, dict[int, int]] = {}
    for client, examples, times in zip(*(array.tolist() for array in _arrays(ledger)), strict=True):
        if client in asked:
            asked[client][examples] = times
        else:
            asked[client] = {examples: times}
    return asked


def _arrays(ledger: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if PARTICIPANTS not in ledger:
        return np.zeros(0, np.str_), np.zeros(0, np.int64), np.zeros(0, np.int64)
    clients, examples, times = (np.asarray(ledger[name]) for name in (PARTICIPANTS, EXAMPLES, PARTICIPATIONS))
    return clients, examples, times
