"""FedAdam: the steps of a coordinate are measured by how much it has moved of late.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2: ``v_t = beta2 v_{t-1} + (1 - beta2) delta_t^2``.
It has no bias correction. Flower's FedAdam multiplies its learning rate by sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1))
in round t = 1, 2, ..., which is neither this algorithm nor Adam's own correction (Kingma and Ba, "Adam: A Method for
Stochastic Optimization", 2015), whose exponent is t. Ours follows the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.server_optimizers.adaptive import Forgetful
from strategies.updates import FloatVector


@dataclass(frozen=True)
class FedAdam(Forgetful):
    """Adam on the mean update."""

    def second_moment(self, v: FloatVector, squares: FloatVector) -> FloatVector:
        """Return the moving average of the squares."""
        moved = v * np.float32(self.beta2)
        moved += np.float32(1 - self.beta2) * squares
        return moved
