"""Plain SGD on the server, which is FedAvg at a learning rate of 1.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 1 with SGD as the server's optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.guarantees import Guarantees
from strategies.options import Options, number
from strategies.server_optimizers.bounds import require_above_zero
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class ServerSGD:
    """``weights + learning_rate * delta``."""

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        require_above_zero("server-learning-rate", self.learning_rate)

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'server-learning-rate'."""
        return cls(number(options, "server-learning-rate", 1.0))

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
