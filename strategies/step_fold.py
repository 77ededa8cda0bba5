"""All that takes in the updates of one step of the server: the aggregator's fold and the objective's observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecordValues

from strategies.aggregators import Aggregator, Fold
from strategies.composition import Composition
from strategies.local_objective import Observation
from strategies.states import StrategyStates
from strategies.updates import PartialSum, Update

Counted = tuple[str, float, Mapping[str, float]]
"""Client, weight and metrics of an update that counts."""


@dataclass
class StepFold:
    """The updates of one step so far; ``counted`` tells of those that count."""

    aggregator: Aggregator
    fold: Fold
    observation: Observation
    counted: list[Counted] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        composition: Composition,
        states: StrategyStates,
        settings: Mapping[str, ConfigRecordValues],
        size: int,
    ) -> StepFold:
        """Begin a step with flat vectors of this length; ``settings`` are those of the clients."""
        fold = composition.aggregator.start(size, states.aggregator)
        return cls(composition.aggregator, fold, composition.objective.start(states.objective, settings))

    @property
    def clients(self) -> list[str]:
        """Those whose updates count."""
        return [client for client, _, _ in self.counted]

    @property
    def metrics(self) -> list[Mapping[str, float]]:
        """What they report."""
        return [metrics for _, _, metrics in self.counted]

    def take(self, outcome: Update | PartialSum) -> list[Counted]:
        """Take in what was admitted and return who counts for how much.

        Raises LayoutError or OverflowError where the parts refuse it, and then nothing has changed in any of them, but
        that a guard has counted its size.
        """
        if isinstance(outcome, PartialSum):
            self.fold.merge(outcome)
            self.observation.merge(outcome)
            rows = [(client, weight, outcome.metrics.get(client, {})) for client, weight in outcome.weights.items()]
        else:
            self.observation.check(outcome)
            self.fold.add(outcome)
            self.observation.add(outcome)
            rows = [(outcome.client, self.aggregator.weight_of(outcome), outcome.metrics)]
        self.counted.extend(rows)
        return rows
