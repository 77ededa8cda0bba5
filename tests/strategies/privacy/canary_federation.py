"""Audited federations of NumPy alone: clients that pull the model to points of their own, and canaries among them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods
from strategies.describe import SIMULATED, NodeDescription
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.privacy.canaries import Canaries, Watch
from strategies.privacy.ledger import Ledger
from strategies.records import RoundRecord
from strategies.seeding import generator
from strategies.updates import FloatVector
from tests.strategies.privacy.test_private_rounds import Change, unchanged

DELTA = 1e-5
SEED = 3


@dataclass(frozen=True)
class Audited:
    """What a run was promised, and what its canaries prove."""

    watch: Watch
    promised: float
    accepted: tuple[int, ...]
    weights: FloatVector

    @property
    def proved(self) -> float:
        return max(self.watch.final_model(DELTA, 0.975).bound, self.watch.all_models(DELTA, 0.975).bound)


def app(canaries: Canaries, others: int) -> ClientApp:
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        names = (*(f"client-{number}" for number in range(others)), *canaries.ids)
        infos = tuple(ClientInfo(name, 10) for name in names)
        return Message(NodeDescription(infos, properties={SIMULATED: True}).to_content(), reply_to=message)

    @client_app.train(mods=client_mods(canaries.mod))
    def train(message: Message, context: Context) -> Message:
        weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
        client = str(wire.config_of(message)["client"])
        goal = generator(SEED, 0, client, "goal").standard_normal(weights.layout.size).astype(np.float32)
        moved = weights.flat + np.float32(0.1) * (goal - weights.flat)
        arrays = dict(zip(weights.layout.names, weights.layout.unflatten(moved), strict=True))
        metrics = MetricRecord({"num-examples": 10, "loss": 1.0})
        return Message(RecordDict({"arrays": wire.array_record(arrays), "metrics": metrics}), reply_to=message)

    return client_app


def audited(
    options: Mapping[str, Option],
    rounds: int = 1,
    canaries: int = 100,
    others: int = 10,
    size: int = 2000,
    *,
    seed: int = SEED,
    nodes: int = 1,
    change: Change = unchanged,
) -> Audited:
    """Run a strategy on canaries and others, and return what came of it; ``change`` makes other parts of its own."""
    bred = Canaries(seed, canaries)
    start = {"kernel": np.zeros((size - 10,), np.float32), "bias": np.zeros(10, np.float32)}
    watch, records = Watch(bred, np.zeros(size, np.float32)), list[RoundRecord]()

    def see(record: RoundRecord) -> None:
        records.append(record)
        assert strategy.arrays is not None
        watch.see(wire.read_weights(strategy.arrays).flat)

    strategy = FederatedStrategy(
        change(registry.build("fedavg", {"privacy": "dp-fedavg", **options})), seed=seed, observers=[see]
    )
    strategy.start(InlineGrid.of(app(bred, others), nodes), wire.array_record(start), num_rounds=rounds)
    promised = Ledger.of(strategy.model.states.ledger).epsilons(DELTA).tightest
    assert strategy.arrays is not None
    weights = wire.read_weights(strategy.arrays).flat
    return Audited(watch, promised, tuple(len(record.accepted) for record in records[1:]), weights)
