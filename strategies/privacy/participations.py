"""How often each client was asked to take part: what privacy costs a client where it pays for itself alone.

In the ledger of a run (`strategies.privacy.budget`) these are three more arrays, so that a checkpoint holds them, and
what is written ahead of a round. Who is asked counts, whatever came of it: a reply that was lost may have been seen.

What taking part costs a client's single examples goes by how many it has (`strategies.privacy.example_level`), and that
may change: so it is told by how many it had when it was asked. A client that does not say counts as if it had a single
one, for which nothing costs more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from strategies.population import Population
from strategies.updates import State

PARTICIPANTS, EXAMPLES, PARTICIPATIONS = "participants", "participants-examples", "participations"
"""Names of the arrays, a row for each client and number of examples with which it was ever asked, sorted: the client,
str [rows], its examples, int64 [rows], and how often it was asked so, int64 [rows]."""
UNTOLD = 1

Asked = Mapping[int, int]
"""In how many rounds a client was asked, by the number of examples that it had then: each is accounted as it was."""


def examples_of(population: Population, cohort: Iterable[str]) -> dict[str, int]:
    """Return how many examples each of these clients has now, `UNTOLD` of those that do not say."""
    cohort = list(cohort)
    return {**dict.fromkeys(cohort, UNTOLD), **population.described(cohort)}


def after(ledger: State, cohort: Mapping[str, int]) -> State:
    """Return the arrays once these clients are asked, each of them once, with so many examples."""
    counts = _counts(ledger)
    counts.update(cohort.items())
    rows = sorted(counts)
    return {
        PARTICIPANTS: np.array([client for client, _ in rows], dtype=np.str_),
        EXAMPLES: np.array([examples for _, examples in rows], dtype=np.int64),
        PARTICIPATIONS: np.array([counts[row] for row in rows], dtype=np.int64),
    }


def most(ledger: State) -> int:
    """Return how often the client was asked that was asked most often, 0 where nobody was."""
    return max((sum(asked.values()) for asked in by_client(ledger).values()), default=0)


def by_client(ledger: State) -> Mapping[str, Asked]:
    """Return how often each client was asked, by how many examples; those that never were do not appear."""
    asked: dict[str, dict[int, int]] = defaultdict(dict)
    for (client, examples), times in _counts(ledger).items():
        asked[client][examples] = times
    return dict(asked)


def _counts(ledger: State) -> Counter[tuple[str, int]]:
    if PARTICIPANTS not in ledger:
        return Counter()
    clients, examples, times = (np.asarray(ledger[name]).tolist() for name in (PARTICIPANTS, EXAMPLES, PARTICIPATIONS))
    return Counter(dict(zip(zip(clients, examples, strict=True), times, strict=True)))
