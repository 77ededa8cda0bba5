"""FedAvgM: server momentum, plain or Nesterov's.

Hsu, Qi, Brown: "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
section 4.2. With d = w - mean, the negative of our delta:

    v = beta v + d        w -= lr v        with Nesterov: w -= lr (d + beta v)

Here the signs of d and v are turned around, which changes no bit. v is a sum and not a mean: where the deltas stay the
same it grows to d / (1 - beta), so that the step is up to 1 / (1 - beta) times that of FedAvg, 10 times at 0.9.

Flower's FedAvgM does the plain form, equally; it has no Nesterov form, which is the one of the paper's experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.guarantees import Guarantees
from strategies.options import Options, flag, number
from strategies.server_optimizers.bounds import require_above_zero, require_decay
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class FedAvgM:
    """SGD with momentum on the mean update; with ``momentum`` 0 it is `ServerSGD`."""

    learning_rate: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        require_above_zero("server-learning-rate", self.learning_rate)
        require_decay("server-momentum", self.momentum)

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'server-learning-rate', 'server-momentum' and 'server-nesterov'."""
        return cls(
            number(options, "server-learning-rate", 1.0),
            number(options, "server-momentum", 0.9),
            flag(options, "server-nesterov", False),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: it works with any delta."""
        return Guarantees()

    def init(self, size: int) -> State:
        """Return a velocity of zero: "momentum", float32 [size]."""
        return {"momentum": np.zeros(size, np.float32)}

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Step along the velocity, or with Nesterov along what it will be if the next delta is this one."""
        beta = np.float32(self.momentum)
        velocity = np.multiply(state["momentum"], beta, dtype=np.float32)
        velocity += delta
        direction = np.multiply(velocity, beta if self.nesterov else np.float32(1))
        if self.nesterov:
            direction += delta
        direction *= np.float32(self.learning_rate)
        direction += weights
        return direction, {"momentum": velocity}
