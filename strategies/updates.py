"""What clients send, once it is plain values: an update of one client, or the partial sum of several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from strategies.errors import LayoutError
from strategies.fixed_point import FixedPointSum, FloatVector, largest_absolute

__all__ = ["AnyArray", "FloatVector", "PartialSum", "State", "Update", "mean_metrics"]

MAX_METRIC = float(np.finfo(np.float32).max)
MAX_MEANS = 200

AnyArray = npt.NDArray[np.generic]
State = Mapping[str, AnyArray]  # of a part, between rounds: arrays by name, so that a checkpoint can hold any part's


@dataclass(frozen=True, eq=False)
class Update:
    """One client's contribution to one round.

    ``delta`` is local - global as a flat float32 vector [size]; ``weight`` what the client claims, as a rule its number
    of training examples (the aggregator decides what it counts); ``metrics`` its own numbers ("loss": 0.3), which are
    only reported and so may be anything: see `mean_metrics`. None of it changes any more once it is an update.
    """

    client: str
    delta: FloatVector
    weight: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def largest(self) -> float:
        """The largest absolute value of the delta, not finite where one of them is not; looked for once."""
        return largest_absolute(self.delta)


@dataclass(frozen=True, eq=False)
class PartialSum:
    """The sum of the updates of several clients, made where they were trained (*packing*), for linear aggregators.

    ``weights`` maps each client to the weight it has in ``total``, ``metrics`` to its numbers. Raises LayoutError where
    the weights are not those in the sum, or the metrics are of other clients.
    """

    total: FixedPointSum
    weights: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        if sorted(self.weights.values()) != sorted(self.total.weights):
            raise LayoutError("weight", "The weights of the clients of a partial sum must be those of the sum itself.")
        if not set(self.metrics) <= set(self.weights):
            raise LayoutError("malformed", "A partial sum must hold metrics of its own clients only.")

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients in the sum, in the order of ``weights``."""
        return tuple(self.weights)


def mean_metrics(rows: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Return the weighted mean of each metric over (weight, metrics) of the clients, in any order to the same bit.

    A value that is not finite, or absurd (beyond the range of float32), is left out with its weight, as if the client
    had not reported this metric: the accuracy of a client without test examples, or an AUC of one class, is NaN for
    good reasons and says nothing of the update. A metric of which no value is left does not appear. There are at most
    200 means, of the metrics that most clients report, and ties by name: names are the clients' invention.
    """
    columns: dict[str, list[tuple[float, float]]] = {}
    for weight, metrics in rows:
        for name, value in metrics.items():
            if abs(value) <= MAX_METRIC:  # false for NaN
                columns.setdefault(name, []).append((weight, value))
    common = sorted(columns, key=lambda name: (-len(columns[name]), name))[:MAX_MEANS]
    return {name: _weighted_mean(columns[name]) for name in sorted(common)}


def _weighted_mean(column: list[tuple[float, float]]) -> float:
    total = math.fsum(weight for weight, _ in column)
    return math.fsum(weight / total * value for weight, value in column)
