"""Aggregators: how the updates of a round become one, and the weighted mean of FedAvg.

An aggregator is a frozen value; `Aggregator.start` gives a fold, which takes in what arrives, in any order, and is
asked once for the result. A linear rule keeps a sum (bounded memory, takes partial sums); a rank-based one collects
single updates, says so in its guarantees, and never gets a partial sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, Self, runtime_checkable

from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, weighting
from strategies.updates import FloatVector, PartialSum, State, Update

__all__ = ["NOTHING", "Aggregator", "Fold", "Guarantees", "LinearFold", "Property", "WeightedMean"]

WEIGHTINGS = ("examples", "uniform")
NOTHING: State = MappingProxyType({})


class Fold(Protocol):
    """The state of one round's aggregation. The result does not depend on the order of calls."""

    def add(self, update: Update) -> None:
        """Take in one admitted update."""

    def merge(self, partial: PartialSum) -> None:
        """Take in the partial sum of several clients. A rule that is not linear raises StrategyError."""

    def result(self) -> FloatVector:
        """Return the aggregated delta, float32 [size]; at least one update was taken in."""

    def state(self) -> State:
        """Return what to remember for the next round; asked after `result`, where the round counts."""


@runtime_checkable
class LinearFold(Fold, Protocol):
    """The fold of an aggregator that gives LINEAR: it shows its exact sum, on which privacy can put noise."""

    @property
    def total(self) -> FixedPointSum:
        """The exact weighted sum so far."""


class Aggregator(Protocol):
    """A rule that turns the updates of a round into one."""

    @property
    def guarantees(self) -> Guarantees:
        """What the rule gives and needs."""

    def weight_of(self, update: Update) -> float:
        """Return what the update counts under this rule (not what the client claims)."""

    def shortfall(self, updates: int) -> str:
        """Return, as a clause, why so few updates cannot be aggregated; "" where they can.

        Asked before the first message with the size of a cohort, and in each round with the number of good updates.
        """

    def init(self, size: int) -> State:
        """Return the state before the first round."""

    def start(self, size: int, state: State = NOTHING) -> Fold:
        """Begin a round with flat vectors of this length, from what was remembered."""


@dataclass(frozen=True)
class WeightedMean:
    """The mean of the updates, by number of examples or each the same (McMahan et al. 2017, "FedAvg", algorithm 1).

    Differs from the paper in that the sum is exact (see `strategies.fixed_point`), so it does not depend on order.
    """

    weighting: str = "examples"

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise StrategyError(f"The key 'weighting' is '{self.weighting}', but must be one of {list(WEIGHTINGS)}.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'weighting'."""
        return cls(weighting(options, auto="examples"))

    @classmethod
    def uniform_of(cls, options: Options) -> Self:
        """Read the key 'weighting' for an algorithm in whose paper all clients count the same."""
        return cls(weighting(options, auto="uniform"))

    @property
    def guarantees(self) -> Guarantees:
        """A weighted sum; with equal weights where they are uniform."""
        equal = {Property.EQUAL_WEIGHTS} if self.weighting == "uniform" else set()
        return Guarantees(gives=frozenset({Property.LINEAR, Property.NODE_SUMS} | equal))

    def weight_of(self, update: Update) -> float:
        """Return the claimed number of examples, or 1."""
        return 1.0 if self.weighting == "uniform" else update.weight

    def shortfall(self, updates: int) -> str:
        """Return nothing: one update will do."""
        return ""

    def init(self, size: int) -> State:
        """Return no state."""
        return NOTHING

    def start(self, size: int, state: State = NOTHING) -> LinearFold:
        """Begin with a sum of zero."""
        return _MeanFold(self, FixedPointSum(size))


@dataclass
class _MeanFold:
    rule: WeightedMean
    total: FixedPointSum

    def add(self, update: Update) -> None:
        self.total.add(update.delta, self.rule.weight_of(update), update.largest)

    def merge(self, partial: PartialSum) -> None:
        if self.rule.weighting == "uniform" and any(weight != 1.0 for weight in partial.weights.values()):
            raise LayoutError("weight", "Every client of a partial sum must have the weight 1 under uniform weighting.")
        self.total.merge(partial.total)

    def result(self) -> FloatVector:
        return self.total.mean()

    def state(self) -> State:
        return NOTHING
