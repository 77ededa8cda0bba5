"""Local objectives: what clients minimise besides their own loss, and what the server remembers for it.

Both halves of such an algorithm are one module: settings and vectors that the server sends with the weights, and what
it learns from the updates that count. What clients do with them is theirs: our client adds the proximal term
(``proximal-mu``) and the correction of the gradient to its local training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from flwr.app import ConfigRecordValues

from strategies.guarantees import Guarantees, Property
from strategies.options import Options
from strategies.updates import FloatVector, PartialSum, State, Update


class Observation(Protocol):
    """What is learnt from the updates of one step. The result does not depend on the order of calls."""

    def check(self, update: Update) -> None:
        """Raise LayoutError where the objective cannot use the update, which is then rejected; changes nothing."""

    def add(self, update: Update) -> None:
        """Look at an update that was checked and that counts."""

    def merge(self, partial: PartialSum) -> None:
        """Look at a partial sum that counts."""

    def state(self, population: int) -> State:
        """Return what to remember for the next round, of a round that counts and a population of so many clients."""


class LocalObjective(Protocol):
    """What clients minimise. The state is all that is remembered between rounds, as arrays by name."""

    @property
    def guarantees(self) -> Guarantees:
        """What the objective gives (NODE_SUMS, where partial sums tell it enough) and needs."""

    def init(self, size: int) -> State:
        """Return the state before the first round of a model whose flat vector is this long."""

    def config(self, state: State) -> dict[str, float]:
        """Return the settings that clients get with those of the round."""

    def arrays(self, state: State) -> Mapping[str, FloatVector]:
        """Return the vectors, float32 [size], that travel beside the weights, each in a record of its name."""

    def start(self, state: State, settings: Mapping[str, ConfigRecordValues]) -> Observation:
        """Begin to observe the updates of a step; ``settings`` are those of the clients."""


@dataclass(frozen=True)
class PlainObjective:
    """The client's own loss and nothing else, as in FedAvg."""

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def guarantees(self) -> Guarantees:
        """Nothing is looked at, so that nodes may add up."""
        return Guarantees(gives=frozenset({Property.NODE_SUMS}))

    def init(self, size: int) -> State:
        """Return no state."""
        return {}

    def config(self, state: State) -> dict[str, float]:
        """Return no settings."""
        return {}

    def arrays(self, state: State) -> Mapping[str, FloatVector]:
        """Return no vectors."""
        return {}

    def start(self, state: State, settings: Mapping[str, ConfigRecordValues]) -> Observation:
        """Observe nothing."""
        return Unobserved()


class Unobserved:
    """The observation of an objective that remembers nothing."""

    def check(self, update: Update) -> None:
        """Accept every update."""

    def add(self, update: Update) -> None:
        """Learn nothing."""

    def merge(self, partial: PartialSum) -> None:
        """Learn nothing."""

    def state(self, population: int) -> State:
        """Return no state."""
        return {}
