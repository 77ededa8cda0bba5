"""The coordinate-wise median.

Yin, Chen, Kannan, Bartlett: "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", 2018,
definition 1: of every coordinate the median over the clients; of an even number of values the mean of the two in the
middle. It withstands any number of attackers below half of the clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from strategies.options import Options, integer
from strategies.robust.collected import CollectingAggregator, Rows, require_equal_weights, too_few
from strategies.robust.trimmed_mean import mean_of_the_middle
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class CoordinateMedian(CollectingAggregator):
    """The median of each coordinate: the mean with all trimmed but the one or two values in the middle."""

    tolerated: int = 0

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'attackers-tolerated'."""
        require_equal_weights(options, "the median")
        return cls(integer(options, "attackers-tolerated", 0))

    def shortfall(self, updates: int) -> str:
        """Ask for a majority that is honest."""
        return too_few("the median", self.tolerated, "2f + 1", 2 * self.tolerated + 1, updates)

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the median."""
        cut = (len(rows) - 1) // 2
        return rows.by_column(lambda block: mean_of_the_middle(block, cut))
