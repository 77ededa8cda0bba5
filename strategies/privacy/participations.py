"""How often each client was asked to take part: what privacy costs a client where it pays for itself alone.

In the ledger of a run (`strategies.privacy.budget`) these are two more arrays, so that a checkpoint holds them. Who is
asked counts, whatever came of it: a reply that was lost may have been seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from strategies.updates import State

PARTICIPANTS, PARTICIPATIONS = "participants", "participations"
"""Names of the arrays: the clients that were ever asked, sorted, str [clients], and how often each, int64 [clients]."""


def after(ledger: State, cohort: Collection[str]) -> State:
    """Return the arrays once these clients are asked, each of them once."""
    known, times = _arrays(ledger)
    asked = np.array(sorted(set(cohort)), dtype=np.str_)
    clients = np.union1d(known, asked)
    counts = np.zeros(len(clients), dtype=np.int64)
    counts[np.searchsorted(clients, known)] = times
    counts[np.searchsorted(clients, asked)] += 1
    return {PARTICIPANTS: clients, PARTICIPATIONS: counts}


def most(ledger: State) -> int:
    """Return how often the client was asked that was asked most often, 0 where nobody was."""
    return int(_arrays(ledger)[1].max(initial=0))


def by_client(ledger: State) -> Mapping[str, int]:
    """Return how often each client was asked; those that never were do not appear."""
    clients, times = _arrays(ledger)
    return dict(zip(clients.tolist(), times.tolist(), strict=True))


def _arrays(ledger: State) -> tuple[np.ndarray, np.ndarray]:
    nobody, never = np.zeros(0, dtype=np.str_), np.zeros(0, dtype=np.int64)
    return np.asarray(ledger.get(PARTICIPANTS, nobody)), np.asarray(ledger.get(PARTICIPATIONS, never))
