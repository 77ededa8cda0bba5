"""Runs of the toy federation in simulated worlds: six clients with 10, 20, ... 60 examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.clientapp import ClientApp

from simulation.conditions import Conditions
from simulation.devices import Devices
from simulation.draws import Draws
from simulation.inline import InlineGrid
from simulation.world import WorldGrid
from strategies import registry
from strategies.fedbuff import strategy_class
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tasks.local_training import LocalTraining
from tests.strategies import toy_federation as toy

A_SECOND_FOR_TEN = Devices(example_seconds=0.1)
"""Client k, who has 10 (k + 1) examples, takes k + 1 seconds."""


def conditions(seed: int = 7, **values: object) -> Conditions:
    """Conditions in which a client goes once through its examples."""
    return Conditions(**{"draws": Draws(seed), "training": LocalTraining(batch_size=10), **values})  # type: ignore[arg-type]


@dataclass
class WiredGrid(InlineGrid):
    """Serializes what it sends and receives, as between processes."""

    def _execute(self, message: Message) -> Message:
        return toy.over_the_wire(super()._execute(toy.over_the_wire(message)))


@dataclass
class BackwardsGrid(InlineGrid):
    """Answers what was sent last first: the opposite of what a queue does."""

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        for message_id in reversed(list(self._waiting)):
            if message_id in message_ids:
                return list(self.pull_messages([message_id]))
        return []


def world(
    given: Conditions, app: ClientApp | None = None, nodes: int = 2, grid: type[InlineGrid] = WiredGrid
) -> WorldGrid:
    """A world around a grid inside this process."""
    client_app = app or toy.app()
    return WorldGrid(grid(client_app, InlineGrid.of(client_app, nodes).node_configs), given)


def run(
    grid: object, *, rounds: int = 2, seed: int = 7, options: dict[str, object] | None = None, **rules: object
) -> tuple[list[np.ndarray], list[RoundRecord]]:
    """Train on a grid; return the final arrays and the records of rounds 1, 2, ..."""
    records: list[RoundRecord] = []
    given = {"strategy": "fedavg", "clients-per-round": 0, **(options or {})}
    composition = registry.build(str(given["strategy"]), given)  # type: ignore[arg-type]
    strategy = strategy_class(composition)(
        composition,
        RoundRules(**{"limits": toy.LIMITS, **rules}),  # type: ignore[arg-type]
        seed=seed,
        observers=[records.append],
    )
    result = strategy.start(grid, toy.start_arrays(), num_rounds=rounds)  # type: ignore[arg-type]
    return result.arrays.to_numpy_ndarrays(), [record for record in records if record.round > 0]


def told(records: Sequence[RoundRecord]) -> list[tuple[object, ...]]:
    """What the records say that must not depend on engine or packing."""
    return [(r.selected, r.accepted, r.rejected, r.simulated_seconds, r.train) for r in records]
