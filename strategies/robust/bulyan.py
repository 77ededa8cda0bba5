"""Bulyan: repeated Krum, then the values around the median of what it selected, coordinate by coordinate.

El Mhamdi, Guerraoui, Rouault: "The Hidden Vulnerability of Distributed Learning in Byzantium", 2018, section 4, with
Krum as the rule that selects: theta = n - 2f updates are selected one after the other, each the one that Krum takes of
those left; then of every coordinate the mean of the beta = theta - 2f values closest to the median. An attacker that
passes for honest by its distance may still be far off in a few coordinates; the second step takes that from it. It
withstands f attackers among n >= 4f + 3 updates.

What differs from the paper: where fewer than f + 3 updates are left to select from, Krum still has one neighbour; of
two values as close to the median the smaller counts. (Flower's Bulyan selects all theta at once by their scores among
all n, as Multi-Krum does, so that updates count as neighbours which are selected already.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.options import Options, integer
from strategies.robust.collected import Block, CollectingAggregator, Doubles, Rows, require_equal_weights, too_few
from strategies.robust.distances import squared_distances
from strategies.robust.krum import krum_scores
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class Bulyan(CollectingAggregator):
    """Krum's selection, and a mean around its median."""

    tolerated: int = 0

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'attackers-tolerated'."""
        require_equal_weights(options, "Bulyan")
        return cls(integer(options, "attackers-tolerated", 0))

    def shortfall(self, updates: int) -> str:
        """Ask for 4f + 3 updates."""
        return too_few("Bulyan", self.tolerated, "4f + 3", 4 * self.tolerated + 3, updates)

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the mean around the median of the selected updates."""
        selected = select(squared_distances(rows), self.tolerated)
        cut = 2 * self.tolerated
        return rows.take(selected).by_column(lambda block: mean_around_median(block, cut))


def select(squared: Doubles, tolerated: int) -> list[int]:
    """Return the places of the n - 2f rows that Krum takes one after the other, sorted."""
    left = list(range(len(squared)))
    selected = []
    for _ in range(len(squared) - 2 * tolerated):
        scores = krum_scores(squared[np.ix_(left, left)], tolerated)
        selected.append(left.pop(int(scores.argmin())))  # the first of those that tie
    return sorted(selected)


def mean_around_median(block: Block, cut: int) -> Doubles:
    """Return the mean of each row without the ``cut`` values that are farthest from its median; sorts the rows.

    The values that stay lie side by side in a sorted row: they begin at the first value that is not farther from the
    median than the value that would come in at the other end.
    """
    block.sort(axis=1)
    count = block.shape[1]
    stay, half = count - cut, (count - 1) // 2
    twice = block[:, half].astype(np.float64) + block[:, count // 2]  # the median, exactly
    farther = np.add(block[:, :cut], block[:, stay:], dtype=np.float64) < twice[:, None]
    first = np.count_nonzero(farther, axis=1)[:, None]
    column = np.arange(count)
    stays = (column >= first) & (column < first + stay)
    means: Doubles = np.where(stays, block, np.float32(0)).sum(axis=1, dtype=np.float64) / stay
    return means
