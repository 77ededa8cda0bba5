"""FedYogi: Adam whose measure of a coordinate forgets slowly, so that a rare large delta does not lose its brake.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2:
``v_t = v_{t-1} - (1 - beta2) delta_t^2 sign(v_{t-1} - delta_t^2)``; Yogi itself is Zaheer et al., "Adaptive Methods for
Nonconvex Optimization", 2018. `strategies.server_optimizers.adaptive` says what differs from Flower's class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.server_optimizers.adaptive import Forgetful
from strategies.updates import FloatVector


@dataclass(frozen=True)
class FedYogi(Forgetful):
    """Yogi on the mean update."""

    def second_moment(self, v: FloatVector, squares: FloatVector) -> FloatVector:
        """Move towards the squares by a share of the squares, and not of the distance as Adam does; stays above 0."""
        moved: FloatVector = np.sign(v - squares)
        moved *= squares
        moved *= np.float32(-(1 - self.beta2))
        moved += v
        return moved
