"""Made-up updates for tests of robust rules, and the shortest way through one."""

from collections.abc import Sequence

import numpy as np

from strategies.aggregators import NOTHING
from strategies.robust.collected import CollectingAggregator, Rows
from strategies.updates import FloatVector, State, Update


def updates_of(vectors: Sequence[Sequence[float]] | np.ndarray, weights: Sequence[float] | None = None) -> list[Update]:
    """One client for each vector, with ids in their order."""
    return [
        Update(f"{place:03}", np.array(vector, dtype=np.float32), 1.0 if weights is None else weights[place])
        for place, vector in enumerate(vectors)
    ]


def aggregated(rule: CollectingAggregator, updates: Sequence[Update], state: State = NOTHING) -> FloatVector:
    fold = rule.start(len(updates[0].delta), state)
    for update in updates:
        fold.add(update)
    return fold.result()


def rows_of(vectors: Sequence[Sequence[float]] | np.ndarray, weights: Sequence[float] | None = None) -> Rows:
    arrays = tuple(np.array(vector, dtype=np.float32) for vector in vectors)
    return Rows(arrays, np.ones(len(arrays)) if weights is None else np.array(weights, dtype=np.float64))


def normal(seed: int, count: int, size: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, size)) * scale).astype(np.float32)


def whole(seed: int, count: int, size: int) -> np.ndarray:
    """Small whole numbers, with ties, of which sums and squares are exact."""
    return np.random.default_rng(seed).integers(-4, 5, size=(count, size)).astype(np.float32)
