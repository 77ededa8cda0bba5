"""Noise that shows what it is made of: each independent draw is a unit vector, so that sums are coefficients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from strategies.privacy.correlated import CorrelatedNoise
from strategies.updates import State

ROOM = 256


@dataclass
class UnitVectors:
    """Stands in for a generator of standard normal numbers."""

    drawn: int = 0

    def standard_normal(self, size: int) -> np.ndarray:
        vector = np.zeros(size)
        vector[self.drawn] = 1.0
        self.drawn += 1
        return vector


def coefficients(correlated: CorrelatedNoise, rounds: Iterable[int]) -> np.ndarray:
    """Return how much of each draw is in the noise of each of these rounds, float64 [rounds, ROOM]."""
    generator, state, found = cast(np.random.Generator, UnitVectors()), cast(State, {}), []
    for round in rounds:
        before = {name: array.copy() for name, array in state.items()}
        vector, after = correlated.next(round, ROOM, state, generator)
        assert all(np.array_equal(before[name], state[name]) for name in before)
        state = after
        found.append(vector.copy())
    return np.array(found)
