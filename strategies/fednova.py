"""FedNova: a mean that does not favour clients for doing more steps.

Wang, Liu, Liang, Joshi, Poor: "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
2020, section 4. A client's update is -lr * sum_k a_k g_k of its gradients g_k, so that in FedAvg it counts by
||a_i||_1, roughly by its steps, on top of its weight p_i, and the model converges to the minimum of another objective.
Here

    delta = tau_eff * sum_i p_i delta_i / ||a_i||_1,    tau_eff = sum_i p_i ||a_i||_1,

with the default tau_eff of the paper, and p_i over the clients that count. Equal steps make it FedAvg.

The length ||a||_1 is tau for plain SGD, (tau - r (1 - r^tau) / (1 - r)) / (1 - r) with momentum r, and
(1 - (1 - lr mu)^tau) / (lr mu) with a proximal term. What differs from the paper: all are one formula here
(`path_length`), which also holds with both; the authors' code applies the one rule after the other. And as clients
report their steps themselves, and tau_eff makes everybody's step longer, none counts in it for more than the run's keys
ask of its examples: it may do more, but not make the others do so.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from strategies.aggregators import NOTHING, Fold, WeightedMean
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.guarantees import Guarantees, Property
from strategies.local_sgd import momentum_of, steps_of
from strategies.options import Options, flag, integer, number, text, weighting
from strategies.updates import FloatVector, PartialSum, State, Update


@functools.lru_cache(maxsize=4096)
def path_length(steps: int, momentum: float = 0.0, proximal: float = 0.0) -> float:
    """Return how far so many steps go along a gradient that is always 1, in units of the learning rate.

    That is ||a||_1 where no coefficient is negative. With velocity v and distance d, one step is
    v <- momentum * v + 1 - proximal * d, d <- d + v, where ``proximal`` is lr * mu: the power of a matrix.
    """
    step = [[momentum, -proximal, 1.0], [momentum, 1.0 - proximal, 1.0], [0.0, 0.0, 1.0]]
    return float(np.linalg.matrix_power(np.array(step), steps)[1, 2])


@dataclass(frozen=True)
class NormalizedMean:
    """The mean of the updates per step, times the mean number of steps.

    ``momentum`` is that of the clients' SGD, ``proximal`` their learning rate times FedProx's mu. ``steps``, or
    ``epochs`` of batches of ``batch_size``, are what clients are asked to do (both 0 = nobody knows). The error is that
    of `strategies.fixed_point` times tau_eff.
    """

    weighting: str = "examples"
    momentum: float = 0.0
    proximal: float = 0.0
    steps: int = 0
    epochs: int = 1
    batch_size: int = 0

    def __post_init__(self) -> None:
        WeightedMean(self.weighting)  # raises for an unknown one
        if not 0 <= self.momentum < 1:
            raise StrategyError(f"The clients' momentum is {self.momentum}, but must be from 0 on and below 1.")
        most = (1 - math.sqrt(self.momentum)) ** 2  # beyond it the path oscillates: some coefficients are negative
        if not 0 <= self.proximal <= most:
            raise StrategyError(
                f"FedNova with a proximal term needs 'learning-rate' * 'proximal-mu' of at most {most:.4g} at momentum "
                f"{self.momentum:g}, but it is {self.proximal:.4g}: lower one of them."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys of the clients' training, and with the strategy 'fedprox' those of the proximal term."""
        return cls(
            weighting(options, auto="examples"),
            momentum_of(options),
            _proximal(options) if text(options, "strategy", "") == "fedprox" else 0.0,
            integer(options, "local-steps", 0),
            integer(options, "local-epochs", 1),
            integer(options, "batch-size", 0),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Weights that depend on each client's steps, so that the server must see single updates."""
        return Guarantees(needs=frozenset({Property.SINGLE_UPDATES}))

    def weight_of(self, update: Update) -> float:
        """Return p_i but for a factor: the claimed number of examples, or 1."""
        return WeightedMean(self.weighting).weight_of(update)

    def length(self, steps: float) -> float:
        """Return ||a||_1 of so many steps."""
        return path_length(int(steps), self.momentum, self.proximal)

    def asked(self, examples: float) -> float:
        """Return how many steps a client with so many examples is asked for at most; infinity where nobody knows."""
        if self.steps:
            return self.steps
        return self.epochs * math.ceil(examples / self.batch_size) if self.batch_size else math.inf

    def shortfall(self, updates: int) -> str:
        """Return nothing: one update will do."""
        return ""

    def init(self, size: int) -> State:
        """Return no state."""
        return NOTHING

    def start(self, size: int, state: State = NOTHING) -> Fold:
        """Begin with a sum of zero."""
        return _NormalizedFold(self, FixedPointSum(size))


@dataclass
class _NormalizedFold:
    rule: NormalizedMean
    total: FixedPointSum
    weights: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    def add(self, update: Update) -> None:
        weight, steps = self.rule.weight_of(update), steps_of(update)
        self.total.add(update.delta, weight / self.rule.length(steps), update.largest)
        self.weights.append(weight)
        self.lengths.append(self.rule.length(min(steps, self.rule.asked(update.weight))))

    def merge(self, partial: PartialSum) -> None:
        raise StrategyError("FedNova needs each client's own update, and no partial sum.")

    def result(self) -> FloatVector:
        weight = math.fsum(self.weights)
        path = math.fsum(weight * length for weight, length in zip(self.weights, self.lengths, strict=True))
        return self.total.divided_by(weight * weight / path)  # that is, times tau_eff and divided by the weight

    def state(self) -> State:
        return NOTHING


def _proximal(options: Options) -> float:
    """Return the learning rate times mu, which must be the same in every round."""
    steady = {"lr-decay": text(options, "lr-decay", "none") == "none"}
    steady["lr-warmup-rounds"] = integer(options, "lr-warmup-rounds", 0) == 0
    steady["adaptive-mu"] = not flag(options, "adaptive-mu", False)
    if moving := [key for key, stays in steady.items() if not stays]:
        raise StrategyError(
            f"FedNova with a proximal term needs one learning rate and one mu for all rounds, but '{moving[0]}' is "
            f"{options[moving[0]]!r}: leave it at its default, or change 'strategy' or 'aggregator'."
        )
    return number(options, "learning-rate", 0.0) * number(options, "proximal-mu", 0.0)
