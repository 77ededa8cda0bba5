"""FedAdam: the steps of a coordinate are measured by how much it has moved of late.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2: ``v_t = beta2 v_{t-1} + (1 - beta2) delta_t^2``.
It has no bias correction. Flower's FedAdam multiplies its learning rate by sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1))
in round t = 1, 2, ..., which is neither this algorithm nor Adam's own correction (Kingma and Ba, "Adam: A Method for
Stochastic Optimization", 2015), whose exponent is t. Ours follows the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.options import Options, number
from strategies.server_optimizers.adaptive import Adaptive
from strategies.server_optimizers.bounds import require_decay
from strategies.updates import FloatVector


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Adam on the mean update."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay("server-beta2", self.beta2)

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'server-learning-rate', 'server-beta1', 'server-epsilon' and 'server-beta2'."""
        return cls(
            number(options, "server-learning-rate", 1.0),
            number(options, "server-beta1", 0.9),
            number(options, "server-epsilon", 1e-3),
            number(options, "server-beta2", 0.99),
        )

    def second_moment(self, v: FloatVector, squares: FloatVector) -> FloatVector:
        """Return the moving average of the squares."""
        moved = v * np.float32(self.beta2)
        moved += np.float32(1 - self.beta2) * squares
        return moved
