"""What rules that need every client's own update share: the fold that keeps them, and the rows they then work on.

At the result the updates are rows in the order of client ids, so that it cannot depend on the order of arrival. The
rows stay where they are; whatever is computed of them is computed for a block of columns at a time, so that the
temporary memory grows neither with the model nor with the number of clients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.aggregators import NOTHING, WEIGHTINGS
from strategies.errors import StrategyError
from strategies.fixed_point import BLOCK
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, weighting
from strategies.updates import FloatVector, PartialSum, State, Update

VALUES_AT_A_TIME = 2**18  # numbers in a block of all rows: 2 MiB as float64, within reach of a core's own cache

Doubles = npt.NDArray[np.float64]
Block = npt.NDArray[Any]  # of all rows: float32 or float64


@dataclass(frozen=True, eq=False)
class Rows:
    """The updates of a round: flat float32 vectors [size], and what each of them counts, float64 [n]."""

    vectors: tuple[FloatVector, ...]
    weights: Doubles

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def size(self) -> int:
        """Length of the vectors."""
        return len(self.vectors[0])

    def take(self, places: Sequence[int]) -> Rows:
        """Return some of the rows, in the order of ``places``."""
        return Rows(tuple(self.vectors[place] for place in places), self.weights[list(places)])

    def with_row(self, vector: FloatVector) -> Rows:
        """Return the rows and one more, which weighs nothing."""
        return Rows((*self.vectors, vector), np.append(self.weights, 0.0))

    def blocks(self) -> Iterator[tuple[slice, Doubles]]:
        """Yield all rows over a part of the columns, float64 [n, columns], each time in the same memory."""
        memory = np.empty((len(self), self._width))
        for part in self._parts():
            block = memory[:, : part.stop - part.start]
            for row, vector in zip(block, self.vectors, strict=True):
                row[:] = vector[part]
            yield part, block

    def by_column(self, rule: Callable[[Block], Doubles]) -> FloatVector:
        """Return the vector, float32 [size], of what a rule makes of every coordinate.

        The rule gets one coordinate of all updates in each row, float32 [columns, n], and may change it.
        """
        memory = np.empty((self._width, len(self)), dtype=np.float32)
        result = np.empty(self.size, dtype=np.float32)
        for part in self._parts():
            block = memory[: part.stop - part.start]
            for place, vector in enumerate(self.vectors):
                block[:, place] = vector[part]
            result[part] = rule(block)
        return result

    def mean(self, weights: Doubles) -> FloatVector:
        """Return the mean by these weights, of which some are positive; summed in float64, then rounded once."""
        total = math.fsum(weights.tolist())
        result = np.empty(self.size, dtype=np.float32)
        for start in range(0, self.size, BLOCK):
            part = slice(start, start + BLOCK)
            sums = np.zeros(min(BLOCK, self.size - start))
            term = np.empty_like(sums)
            for vector, weight in zip(self.vectors, weights.tolist(), strict=True):
                np.copyto(term, vector[part])
                np.multiply(term, weight, out=term)
                np.add(sums, term, out=sums)
            result[part] = sums / total
        return result

    @property
    def _width(self) -> int:
        """How many columns a block has at most."""
        return min(self.size, max(1, VALUES_AT_A_TIME // len(self)))

    def _parts(self) -> Iterator[slice]:
        width = self._width
        return (slice(start, min(start + width, self.size)) for start in range(0, self.size, width))


class CollectingAggregator(ABC):
    """A rule over single updates, all of which are there at once.

    ``tolerated`` is how many attackers among the updates it is to withstand; a rule says in `shortfall` what that asks
    for. A rule that weighs clients has ``weighting`` as a field; to all others each counts the same.
    """

    tolerated: int = 0
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        if self.tolerated < 0:
            raise StrategyError(f"The key 'attackers-tolerated' is {self.tolerated}, but must be 0 or more.")
        if self.weighting not in WEIGHTINGS:
            raise StrategyError(f"The key 'weighting' is '{self.weighting}', but must be one of {list(WEIGHTINGS)}.")

    @abstractmethod
    def aggregate(self, rows: Rows, state: State) -> FloatVector:
        """Return one update, float32 [size], of at least as many rows as `shortfall` asks for."""

    @abstractmethod
    def shortfall(self, updates: int) -> str:
        """Return, as a clause, why so few updates cannot be aggregated; "" where they can."""

    @property
    def guarantees(self) -> Guarantees:
        """Needs each client's own update."""
        equal = {Property.EQUAL_WEIGHTS} if self.weighting == "uniform" else set()
        return Guarantees(gives=frozenset(equal), needs=frozenset({Property.SINGLE_UPDATES}))

    def weight_of(self, update: Update) -> float:
        """Return 1, or the claimed number of examples."""
        return 1.0 if self.weighting == "uniform" else update.weight

    def init(self, size: int) -> State:
        """Return no state."""
        return NOTHING

    def start(self, size: int, state: State = NOTHING) -> CollectedFold:
        """Begin with no updates."""
        return CollectedFold(self, state or self.init(size))

    def remember(self, aggregate: FloatVector) -> State:
        """Return no state."""
        return NOTHING


@dataclass
class CollectedFold:
    """Keeps the updates of a round until they are aggregated.

    A client that is there more than once, as in a buffer of FedBuff, is in the order of its arrivals.
    """

    rule: CollectingAggregator
    before: State
    updates: list[Update] = field(default_factory=list)
    _aggregate: FloatVector | None = None

    def add(self, update: Update) -> None:
        """Keep an update."""
        self.updates.append(update)

    def merge(self, partial: PartialSum) -> None:
        """Raise StrategyError: of a sum nobody can tell the updates any more."""
        raise StrategyError(f"{type(self.rule).__name__} needs each client's own update, but got a sum of several.")

    def result(self) -> FloatVector:
        """Aggregate the updates."""
        updates = sorted(self.updates, key=lambda update: update.client)
        weights = np.array([self.rule.weight_of(update) for update in updates])
        rows = Rows(tuple(update.delta for update in updates), weights)
        self._aggregate = self.rule.aggregate(rows, self.before)
        return self._aggregate

    def state(self) -> State:
        """Return what the rule remembers."""
        assert self._aggregate is not None, "asked before the result"
        return self.rule.remember(self._aggregate)


def too_few(rule: str, tolerated: int, condition: str, needed: int, updates: int) -> str:
    """Return the clause that a rule tolerates its attackers only among ``needed`` updates, "" where there are as many.

    ``condition`` is how that number comes about, as in "2f + 3".
    """
    if updates >= needed:
        return ""
    return (
        f"{rule} tolerates f = {tolerated} attackers ('attackers-tolerated') only among {condition} = {needed} updates "
        f"or more, but a round has {updates}"
    )


def require_equal_weights(options: Options, rule: str) -> None:
    """Raise StrategyError where the key 'weighting' asks for weights that the rule does not know."""
    if weighting(options, auto="uniform") != "uniform":
        raise StrategyError(
            f"The key 'weighting' is '{options['weighting']}', but {rule} counts every client the same: set it to "
            "'auto' or 'uniform'."
        )
