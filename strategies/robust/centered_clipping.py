"""Centered clipping: the mean of updates that are clipped towards the aggregate of the round before.

Karimireddy, He, Jaggi: "Learning from History for Byzantine Robust Optimization", 2021, algorithm 2: from v, the last
aggregate, v <- v + mean_i (x_i - v) min(1, tau / ||x_i - v||), as often as wanted; once is enough where v is near. No
update moves the aggregate by more than tau / n. It withstands a constant share of attackers below one half.

What differs from the paper: the clients send no momentum, as their updates already sum up many steps; the first round
begins at 0. As in `strategies.robust.geometric_median` all steps but the last are made in distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.errors import StrategyError
from strategies.options import Options, integer, number
from strategies.robust.collected import CollectingAggregator, Rows, require_equal_weights, too_few
from strategies.robust.distances import distances_from_mean, squared_distances
from strategies.updates import FloatVector, State

CENTER = "center"


@dataclass(frozen=True)
class CenteredClipping(CollectingAggregator):
    """``iterations`` steps that clip at ``clip_norm``, the paper's tau, from the last aggregate on."""

    clip_norm: float = 1.0
    iterations: int = 1
    tolerated: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip_norm < math.inf:
            raise StrategyError(
                f"The key 'centered-clip-norm' is {self.clip_norm}, but must be a finite number above 0."
            )
        if self.iterations < 1:
            raise StrategyError(f"The key 'centered-clip-iterations' is {self.iterations}, but must be 1 or more.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'centered-clip-norm', 'centered-clip-iterations' and 'attackers-tolerated'."""
        require_equal_weights(options, "centered clipping")
        return cls(
            number(options, "centered-clip-norm", 1.0),
            integer(options, "centered-clip-iterations", 1),
            integer(options, "attackers-tolerated", 0),
        )

    def shortfall(self, updates: int) -> str:
        """Ask for a majority that is honest."""
        return too_few("centered clipping", self.tolerated, "2f + 1", 2 * self.tolerated + 1, updates)

    def init(self, size: int) -> State:
        """Begin at 0."""
        return {CENTER: np.zeros(size, dtype=np.float32)}

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the last step; it is a mean of the updates and the center, which is the last row here."""
        center = state[CENTER]
        assert center.dtype == np.float32, "the state is not this rule's"
        points = rows.with_row(center.astype(np.float32, copy=False))
        squared, shares = squared_distances(points), np.append(np.zeros(len(rows)), 1.0)
        for _ in range(self.iterations):
            distances = distances_from_mean(squared, shares)[:-1]
            kept = self.clip_norm / np.maximum(distances, self.clip_norm) / len(rows)
            shares = shares * (1 - kept.sum()) + np.append(kept, 0.0)
        return points.mean(shares)

    def remember(self, aggregate: FloatVector) -> State:
        """Return the center of the next round."""
        return {CENTER: aggregate}
