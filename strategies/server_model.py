"""The server's own half of a round: what it remembers between rounds, and how a step moves the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import ArrayRecord

from strategies import wire
from strategies.composition import Composition
from strategies.compression.differences import Chain
from strategies.compression.downlink import Differences, refuse_whole_numbers
from strategies.layout import ModelLayout
from strategies.privacy import participations
from strategies.privacy.budget import Budget, account
from strategies.privacy.noise import NoiseSource, system_noise
from strategies.privacy.spending import Spending
from strategies.states import StrategyStates
from strategies.step_fold import StepFold
from strategies.updates import FloatVector

FLOATS = frozenset({"float32", "float64"})  # which hold every float32 as it is


@dataclass
class ServerModel:
    """The states of a strategy's parts, and the weights that were read or made last.

    These are kept as the record that is sent and as the flat vector that is stepped, so that a round need not read what
    the one before it has just written. ``committed`` is the round in which each client's update counted last: all that
    the server remembers of the states that clients keep. ``noise`` is where the noise for privacy comes from.
    """

    composition: Composition
    states: StrategyStates = field(default_factory=StrategyStates)
    committed: dict[str, int] = field(default_factory=dict)
    noise: NoiseSource = system_noise
    _last: tuple[ArrayRecord, wire.GlobalWeights] | None = None
    _started: bool = False

    def go_on(self, states: StrategyStates, committed: Mapping[str, int]) -> None:
        """Take what was remembered after a round of the same run."""
        self.states, self.committed, self._started = states, dict(committed), True

    def weights_of(self, record: ArrayRecord) -> wire.GlobalWeights:
        """Return the weights in a record; the first of a run also begin the states."""
        if self._last is None or self._last[0] is not record:
            self._last = record, wire.read_weights(record)
        weights = self._last[1]
        if not self._started:
            self.states = StrategyStates.first(self.composition, weights.layout.size)
            self._started = True
        return weights

    def step(self, taken: StepFold, weights: wire.GlobalWeights, round: int, population: int) -> ArrayRecord | None:
        """Return the weights moved by the updates that were taken in.

        None, and nothing is changed, where they would not be finite.
        """
        parts, states = self.composition, self.states
        delta, privacy = parts.privacy.finish(round, taken.fold, taken.metrics, states.privacy, self.noise(round))
        flat, server_optimizer = parts.server_optimizer.step(weights.flat, delta, states.server_optimizer)
        if not np.isfinite(flat).all():
            return None
        objective, aggregator = taken.observation.state(population), taken.fold.state()
        moved = StrategyStates(objective, aggregator, privacy, server_optimizer)
        self.states = replace(moved, ledger=states.ledger, downlink=states.downlink)
        self.committed.update(dict.fromkeys(taken.clients, round))
        return self._record_of(weights.layout, flat)

    def reference(self, downlink: Differences, weights: wire.GlobalWeights, version: int, seed: int) -> Chain:
        """Return what is sent of the weights as their version of this number, in the run of this seed."""
        refuse_whole_numbers(weights.layout)
        if self.states.downlink:
            chain = Chain.of(self.states.downlink).moved(downlink.codec, weights.flat, version, seed)
        else:
            chain = Chain(version, weights.flat)
        self.states = replace(self.states, downlink=chain.state())
        return chain

    def heard(self, asked: Collection[str], counted: Collection[str]) -> None:
        """Take down who has the weights that were sent to train from, where that matters: whose updates count."""
        if self.states.downlink:
            chain = Chain.of(self.states.downlink).heard(asked, counted)
            self.states = replace(self.states, downlink=chain.state())

    def account(self, round: int, budget: Budget, clients: int, cohort: Mapping[str, int]) -> None:
        """Account a round before it begins, for which the cohort was drawn of so many; with each one's examples.

        Raises BudgetSpentError where it would exceed the budget.
        """
        ledger = account(round, self.composition, budget, self.states.ledger, clients, cohort)
        self.states = replace(self.states, ledger=ledger)

    def take_down(self, budget: Budget, clients: Mapping[str, int]) -> None:
        """Count clients with so many examples as asked, of which no round has told, where the budget wants it known."""
        if budget.by_client:
            ledger = {**self.states.ledger, **participations.after(self.states.ledger, clients)}
            self.states = replace(self.states, ledger=ledger)

    def spending(self, budget: Budget) -> Spending | None:
        """Return what all rounds that were accounted come to, and how the next one is noised; None without privacy."""
        privacy = self.composition.privacy
        return Spending.of(self.states.ledger, budget, privacy.told(self.states.privacy), privacy.caveat)

    def _record_of(self, layout: ModelLayout, flat: FloatVector) -> ArrayRecord:
        flat.flags.writeable = False
        arrays = layout.unflatten(flat)
        if not FLOATS.issuperset(layout.dtypes):
            flat = layout.flatten(arrays)  # clients start from what the dtypes have left of it
            flat.flags.writeable = False
        record = wire.array_record(dict(zip(layout.names, arrays, strict=True)))
        self._last = record, wire.GlobalWeights(layout, arrays, flat)
        return record
