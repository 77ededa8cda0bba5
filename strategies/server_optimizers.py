"""Server optimizers: how the aggregated delta moves the global weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.updates import FloatVector, State


class ServerOptimizer(Protocol):
    """A pure step: weights, delta and state in, new weights and state out; nothing is changed in place.

    The state is all that is remembered between rounds (moments, step count), as arrays by name, and is checkpointed.
    The delta is the negative of a gradient: a step goes along it. All vectors have the length of the model. What an
    algorithm keeps besides (SCAFFOLD's control variates) belongs into the state.
    """

    @property
    def guarantees(self) -> Guarantees:
        """What the optimizer gives and needs."""

    def init(self, size: int) -> State:
        """Return the state before the first step."""

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Return the new weights, float32 [size], and the new state."""


@dataclass(frozen=True)
class ServerSGD:
    """``weights + learning_rate * delta``; with 1.0 it is FedAvg (Reddi et al. 2021, "Adaptive Federated
    Optimization", algorithm 1 with SGD on the server).
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise StrategyError(
                f"The key 'server-learning-rate' is {self.learning_rate}, but must be a finite number above 0."
            )

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: it works with any delta."""
        return Guarantees()

    def init(self, size: int) -> State:
        """Return no state: plain SGD remembers nothing."""
        return {}

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Step along the delta."""
        return weights + np.float32(self.learning_rate) * delta, state
