"""FedAdagrad: the steps of a coordinate shrink with all that it has ever moved.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2: ``v_t = v_{t-1} + delta_t^2``; as in the paper's
experiments (section 4) without momentum, beta1 = 0. `strategies.server_optimizers.adaptive` says what differs from
Flower's class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from strategies.options import Options, number
from strategies.server_optimizers.adaptive import Adaptive
from strategies.updates import FloatVector


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Adagrad on the mean update."""

    beta1: float = 0.0

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'server-learning-rate' and 'server-epsilon'."""
        return cls(number(options, "server-learning-rate", 1.0), epsilon=number(options, "server-epsilon", 1e-3))

    def second_moment(self, v: FloatVector, squares: FloatVector) -> FloatVector:
        """Add the squares."""
        return v + squares
