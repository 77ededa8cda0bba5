"""What a strategy remembers between rounds: the states of its parts, all that a checkpoint has to hold of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from strategies.composition import Composition
from strategies.updates import State


@dataclass(frozen=True)
class StrategyStates:
    """The states of the parts that have any: arrays by name, never changed in place.

    ``ledger`` holds what the rounds have cost in privacy, also those that did not count (`strategies.privacy.budget`);
    ``downlink`` the model as clients last had it, where differences to that are sent (`compression.differences`).
    """

    objective: State = field(default_factory=dict)
    aggregator: State = field(default_factory=dict)
    privacy: State = field(default_factory=dict)
    server_optimizer: State = field(default_factory=dict)
    ledger: State = field(default_factory=dict)
    downlink: State = field(default_factory=dict)

    @classmethod
    def first(cls, composition: Composition, size: int) -> StrategyStates:
        """Return the states before the first round of a model whose flat vector is this long."""
        return cls(
            objective=composition.objective.init(size),
            aggregator=composition.aggregator.init(size),
            privacy=composition.privacy.init(size),
            server_optimizer=composition.server_optimizer.init(size),
        )
