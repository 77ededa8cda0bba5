"""What a server optimizer is: a pure step of the weights along a delta."""

from __future__ import annotations

from typing import Protocol

from strategies.guarantees import Guarantees
from strategies.updates import FloatVector, State


class ServerOptimizer(Protocol):
    """A pure step: weights, delta and state in, new weights and state out; nothing is changed in place.

    The state is all that is remembered between rounds (moments, step count), as arrays by name, and is checkpointed.
    The delta is the negative of a gradient: a step goes along it. All vectors have the length of the model.
    """

    @property
    def guarantees(self) -> Guarantees:
        """What the optimizer gives and needs."""

    def init(self, size: int) -> State:
        """Return the state before the first step."""

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Return the new weights, float32 [size], and the new state."""
