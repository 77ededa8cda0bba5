"""Krum and Multi-Krum: the updates that have the nearest neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer: "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
2017, section 4: an update's score is the sum of the squared distances to its n - f - 2 nearest others, of which at
least one half is honest; Krum takes the update of the lowest score, Multi-Krum (section 5) the mean of the m lowest.
It withstands f attackers among n >= 2f + 3 updates.

What differs from the paper: scores that tie are ordered by client id, and the m updates may be weighed. (Flower's Krum
asks for no least number of updates, takes its distances from whole models in float32, where the model's own norm hides
them, and leaves out of the neighbours what sorts first instead of the update itself.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.errors import StrategyError
from strategies.options import Options, integer, weighting
from strategies.robust.collected import CollectingAggregator, Doubles, Rows, require_equal_weights, too_few
from strategies.robust.distances import squared_distances
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class Krum(CollectingAggregator):
    """Krum with ``selected`` 1, Multi-Krum with more; 0 = all but the attackers, n - f."""

    tolerated: int = 0
    selected: int = 1
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selected < 0:
            raise StrategyError(f"The key 'krum-selected' is {self.selected}, but must be 0 (n - f) or more.")

    @classmethod
    def one(cls, options: Options) -> Self:
        """Read the key 'attackers-tolerated', of Krum."""
        require_equal_weights(options, "Krum")
        return cls(integer(options, "attackers-tolerated", 0))

    @classmethod
    def several(cls, options: Options) -> Self:
        """Read the keys 'attackers-tolerated', 'krum-selected' and 'weighting', of Multi-Krum."""
        tolerated, selected = integer(options, "attackers-tolerated", 0), integer(options, "krum-selected", 0)
        return cls(tolerated, selected, weighting(options, auto="uniform"))

    def shortfall(self, updates: int) -> str:
        """Ask for 2f + 3 updates, of which not more may be selected than are honest."""
        honest = updates - self.tolerated
        if why := too_few("Krum", self.tolerated, "2f + 3", 2 * self.tolerated + 3, updates):
            return why
        if self.selected > honest:
            return (
                f"Multi-Krum is to select {self.selected} updates ('krum-selected'), but of the {updates} of a round "
                f"only {honest} are honest, with 'attackers-tolerated' {self.tolerated}"
            )
        return ""

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the selected update, or the mean of several."""
        scores = krum_scores(squared_distances(rows), self.tolerated)
        lowest = np.argsort(scores, kind="stable")[: self.selected or len(rows) - self.tolerated]
        chosen = rows.take(sorted(lowest.tolist()))
        return chosen.mean(chosen.weights) if len(chosen) > 1 else chosen.vectors[0]


def krum_scores(squared: Doubles, tolerated: int) -> Doubles:
    """Return the scores, float64 [n], of rows with these squared distances [n, n].

    There is at least one neighbour, where there is another row at all: Bulyan asks for the scores of a few.
    """
    count = len(squared)
    neighbours = min(max(1, count - tolerated - 2), count - 1)
    others = squared.copy()
    np.fill_diagonal(others, np.inf)
    others.sort(axis=1)
    scores: Doubles = others[:, :neighbours].sum(axis=1)
    return scores
