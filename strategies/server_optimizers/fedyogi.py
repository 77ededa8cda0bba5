"""FedYogi: Adam whose measure of a coordinate forgets slowly, so that a rare large delta does not lose its brake.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2:
``v_t = v_{t-1} - (1 - beta2) delta_t^2 sign(v_{t-1} - delta_t^2)``; Yogi itself is Zaheer et al., "Adaptive Methods for
Nonconvex Optimization", 2018. `strategies.server_optimizers.adaptive` says what differs from Flower's class.
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
class FedYogi(Adaptive):
    """Yogi on the mean update."""

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
        """Move towards the squares by a share of the squares, and not of the distance as Adam does; stays above 0."""
        moved: FloatVector = np.sign(v - squares)
        moved *= squares
        moved *= np.float32(-(1 - self.beta2))
        moved += v
        return moved
