"""The geometric median (RFA): the point whose distances to all updates have the smallest sum.

Pillutla, Kakade, Harchaoui: "Robust Aggregation for Federated Learning", 2022, algorithm 2, the smoothed Weiszfeld
algorithm: from the weighted mean on, each step is the mean with each update weighed by its weight over its distance,
but at least nu, from the step before. It withstands attackers of less than half the weight.

What differs from the paper: no step is made as a vector but the last. All of them are means of the updates, and of a
mean the distances follow from those between the updates, so that the model's size counts once and not in every step.
The paper has 3 steps, as each costs it a round of messages; but a step takes the pull of attackers far away down by no
more than their number over that of the honest. Here steps cost nothing, and 50 leave nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.errors import StrategyError
from strategies.options import Options, integer, weighting
from strategies.robust.collected import CollectingAggregator, Rows, too_few
from strategies.robust.distances import distances_from_mean, squared_distances
from strategies.updates import FloatVector, State

SMOOTHING = 1e-6  # the paper's nu


@dataclass(frozen=True)
class GeometricMedian(CollectingAggregator):
    """``iterations`` steps of the smoothed Weiszfeld algorithm."""

    iterations: int = 50
    tolerated: int = 0
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise StrategyError(f"The key 'rfa-iterations' is {self.iterations}, but must be 1 or more.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'rfa-iterations', 'attackers-tolerated' and 'weighting'."""
        iterations, tolerated = integer(options, "rfa-iterations", 50), integer(options, "attackers-tolerated", 0)
        return cls(iterations, tolerated, weighting(options, auto="uniform"))

    def shortfall(self, updates: int) -> str:
        """Ask for a majority that is honest."""
        return too_few("the geometric median", self.tolerated, "2f + 1", 2 * self.tolerated + 1, updates)

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the last step."""
        squared, weights = squared_distances(rows), rows.weights
        for _ in range(self.iterations):
            weights = rows.weights / np.maximum(distances_from_mean(squared, weights), SMOOTHING)
        return rows.mean(weights)
