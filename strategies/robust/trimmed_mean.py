"""The coordinate-wise trimmed mean: of every coordinate the smallest and the largest values are left out.

Yin, Chen, Kannan, Bartlett: "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", 2018,
definition 2: the mean of what is left when a share ``beta`` of the values has been cut off each end. It withstands as
many attackers as values are cut off an end.

What differs from the paper: it leaves open how a share becomes a number; here it is rounded up, so that with any beta
above 0 at least one value is cut off each end, and never so far that nothing is left. (Flower's `FedTrimmedAvg` rounds
down: with beta 0.2 and four clients it is the plain mean.) The values that are left may be weighed by the examples that
clients claim; that trusts the claims, so it is not what is done unasked. Values that tie are ordered by client id.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from strategies.errors import StrategyError
from strategies.options import Options, integer, number, weighting
from strategies.robust.collected import Block, CollectingAggregator, Doubles, Rows
from strategies.updates import FloatVector, State

Integers = npt.NDArray[np.int32]

_MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but its sign
_PLACE = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class TrimmedMean(CollectingAggregator):
    """The mean without the ``ceil(beta * n)`` smallest and as many largest of n values, coordinate by coordinate."""

    beta: float = 0.2
    tolerated: int = 0
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 0.5:
            raise StrategyError(f"The key 'trim-beta' is {self.beta}, but must be at least 0 and below 0.5.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'trim-beta', 'attackers-tolerated' and 'weighting'."""
        tolerated = integer(options, "attackers-tolerated", 0)
        return cls(number(options, "trim-beta", 0.2), tolerated, weighting(options, auto="uniform"))

    def trimmed(self, updates: int) -> int:
        """Return how many of so many values are cut off each end."""
        if self.beta == 0:
            return 0
        # A product such as 0.07 * 100 lies a rounding above the whole number that is meant.
        share = math.ceil(round(self.beta * updates, 6))
        return min(max(1, share), (updates - 1) // 2)

    def shortfall(self, updates: int) -> str:
        """Ask for one value to cut off each end, where any is to be, and for as many as there are attackers."""
        cut = self.trimmed(updates)
        if self.beta > 0 and cut == 0:
            return (
                f"the trimmed mean ('trim-beta' {self.beta:g}) cuts at least one value off each end and so needs 3 "
                f"updates or more, but a round has {updates}"
            )
        if cut < self.tolerated:
            return (
                f"the trimmed mean tolerates as many attackers as values are cut off each end, with 'trim-beta' "
                f"{self.beta:g} {cut} of {updates}, but 'attackers-tolerated' is {self.tolerated}"
            )
        return ""

    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return the trimmed mean."""
        cut = self.trimmed(len(rows))
        if cut == 0:
            return rows.mean(rows.weights)
        if (rows.weights == rows.weights[0]).all():
            return rows.by_column(lambda block: mean_of_the_middle(block, cut))
        return rows.by_column(lambda block: _weighted_mean_of_the_middle(block, cut, rows.weights))


def mean_of_the_middle(block: Block, cut: int) -> Doubles:
    """Return the mean of each row [n] without its ``cut`` smallest and largest values; sorts the rows.

    To sort short rows as a whole is faster than to partition them, as NumPy does it several values at a time.
    """
    block.sort(axis=1)
    middle: Doubles = block[:, cut : block.shape[1] - cut].mean(axis=1, dtype=np.float64)
    return middle + 0.0  # which makes 0 of -0: to the sort they are one, and either may be cut off


def _weighted_mean_of_the_middle(block: Block, cut: int, weights: Doubles) -> Doubles:
    """Return the same with a weight for each column.

    A value and its place are sorted as one whole number: above, the bits of the float in an order that is the numbers'
    own (those of negative ones turned round), and below, the place.
    """
    keys = _turned(block.view(np.int32)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(weights))
    keys.sort(axis=1)
    middle = keys[:, cut : len(weights) - cut]
    chosen = weights[middle & _PLACE]
    values = _turned((middle >> 32).astype(np.int32)).view(np.float32)
    means: Doubles = (values * chosen).sum(axis=1) / chosen.sum(axis=1)
    return means + 0.0


def _turned(bits: Integers) -> Integers:
    """Turn the order of negative floats round in their bits, or back."""
    return bits ^ ((bits >> 31) & _MAGNITUDE)
