"""What FedAdagrad, FedAdam and FedYogi share: algorithm 2 of "Adaptive Federated Optimization" (Reddi et al., 2021).

    m_t = beta1 m_{t-1} + (1 - beta1) delta_t                 m_{-1} = 0
    v_t = what each of the three makes of delta_t^2           v_{-1} = epsilon^2
    w_{t+1} = w_t + lr m_t / (sqrt(v_t) + epsilon)

The paper's tau is called epsilon here, as the key is. It asks for v_{-1} >= tau^2, of which we take the smallest, and
has no bias correction.

Flower's classes start from v = 0 instead, which the paper's analysis excludes: where deltas are small beside epsilon,
first steps are twice as long. Its FedAdam besides corrects a bias, as `fedadam` says. From the same moments, and but
for that correction, a step of theirs is one of ours to 1e-6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from strategies.fixed_point import BLOCK
from strategies.guarantees import Guarantees
from strategies.options import Options, number
from strategies.server_optimizers.bounds import require_above_zero, require_decay
from strategies.updates import FloatVector, State


@dataclass(frozen=True)
class Adaptive(ABC):
    """Algorithm 2 up to the rule for v: each coordinate has a step of its own, however small its deltas are.

    Good learning rates are far below FedAvg's 1, since m / sqrt(v) is of the order of 1: for EMNIST the paper's are
    10^-1, 10^-2.5 and 10^-2.5. The smaller ``epsilon``, the more alike are the steps of all coordinates.
    """

    learning_rate: float = 1.0
    beta1: float = 0.9
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        require_above_zero("server-learning-rate", self.learning_rate)
        require_decay("server-beta1", self.beta1)
        require_above_zero("server-epsilon", self.epsilon)

    @abstractmethod
    def second_moment(self, v: FloatVector, squares: FloatVector) -> FloatVector:
        """Return the next v of some coordinates, a new array, from the last one and the squares of their deltas."""

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: it works with any delta."""
        return Guarantees()

    def init(self, size: int) -> State:
        """Return the moments before the first step: "m" and "v", float32 [size]."""
        return {"m": np.zeros(size, np.float32), "v": np.full(size, self.epsilon**2, np.float32)}

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Step along the mean of the deltas, each coordinate by its own measure.

        Beside what is returned it takes the memory of a few blocks of coordinates.
        """
        stepped, m, v = np.empty_like(weights), np.empty_like(weights), np.empty_like(weights)
        for start in range(0, len(weights), BLOCK):
            part = slice(start, start + BLOCK)
            m[part], v[part] = self._moments(_floats(state["m"][part]), _floats(state["v"][part]), delta[part])
            scale = np.sqrt(v[part])
            scale += np.float32(self.epsilon)
            step = m[part] / scale
            step *= np.float32(self.learning_rate)
            np.add(weights[part], step, out=stepped[part])
        return stepped, {"m": m, "v": v}

    def _moments(self, m: FloatVector, v: FloatVector, delta: FloatVector) -> tuple[FloatVector, FloatVector]:
        mean = m * np.float32(self.beta1)
        mean += np.float32(1 - self.beta1) * delta
        return mean, self.second_moment(v, np.square(delta))


@dataclass(frozen=True)
class Forgetful(Adaptive):
    """Those of the three whose v forgets, by a rate: ``beta2``."""

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


def _floats(array: np.ndarray[Any, Any]) -> FloatVector:
    return array.astype(np.float32, copy=False)
