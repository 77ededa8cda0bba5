"""The round loop, on models of three parameters and clients that do not train but move by a known step."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.federated import FederatedStrategy, RoundRules
from strategies.population import ClientInfo
from strategies.records import RoundRecord

CLIENTS = tuple(ClientInfo(str(number), num_examples=number + 1) for number in range(6))
START = np.array([1.0, -2.0, 0.5], dtype=np.float32)


def step(client: str) -> np.ndarray:
    """What client k adds to the weights: (k, -k, 0.1 k)."""
    return np.array([1.0, -1.0, 0.1], dtype=np.float32) * int(client)


def packed_app() -> ClientApp:
    app = ClientApp()

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        return Message(NodeDescription(CLIENTS).to_content(), reply_to=message)

    @app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        (weights,) = message.content["arrays"].to_numpy_ndarrays()
        client = str(config["client"])
        if client == config.get("raises"):
            raise ValueError("no disk")
        local = weights + step(client)
        metrics = {"num-examples": int(client) + 1, "loss": float(client)}
        return Message(RecordDict({"arrays": ArrayRecord([local]), "metrics": MetricRecord(metrics)}), reply_to=message)

    @app.evaluate(mods=client_mods())
    def evaluate(message: Message, context: Context) -> Message:
        client = int(wire.config_of(message)["client"])
        metrics = {"num-examples": client, "loss": float(client), "accuracy": client / 10}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def stock_app() -> ClientApp:
    """A client of Flower's own kind: no mods, no describe, full arrays back."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        local = [array + 2 for array in message.content["arrays"].to_numpy_ndarrays()]
        content = {"arrays": ArrayRecord(local), "metrics": MetricRecord({"num-examples": 10, "train_loss": 0.25})}
        return Message(RecordDict(content), reply_to=message)

    return app


def run(app: ClientApp, nodes: int = 2, rounds: int = 2, clients: int = 4, **rules: object):
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"clients-per-round": clients}),
        RoundRules(**rules),
        seed=3,
        round_config=lambda number: {"learning-rate": 0.5, "raises": rules.get("raises", "")},
        observers=[records.append],
    )
    result = strategy.start(InlineGrid.of(app, nodes), ArrayRecord([START]), num_rounds=rounds)
    return result.arrays.to_numpy_ndarrays()[0], records


def test_one_round_with_all_clients_is_the_weighted_mean_written_down() -> None:
    weights, records = run(packed_app(), rounds=1, clients=6)
    # sum of k (k + 1) for k < 6 is 70, sum of (k + 1) is 21
    np.testing.assert_allclose(weights, START + np.array([70 / 21, -70 / 21, 7 / 21]), rtol=1e-6)
    assert records[1].train["loss"] == pytest.approx(70 / 21)
    assert records[1].accepted == ("0", "1", "2", "3", "4", "5")
    assert records[1].learning_rate == 0.5


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize("clients_per_message", [0, 1, 2])
def test_weights_are_bit_identical_for_any_packing_and_number_of_nodes(nodes: int, clients_per_message: int) -> None:
    reference, _ = run(packed_app(), nodes=1, rounds=5)
    weights, _ = run(packed_app(), nodes=nodes, rounds=5, clients_per_message=clients_per_message)
    assert weights.tobytes() == reference.tobytes()


def test_replies_of_a_stock_flower_app_are_understood() -> None:
    weights, records = run(stock_app(), nodes=4, rounds=2, clients=0)
    np.testing.assert_allclose(weights, START + 4)
    assert len(records[2].accepted) == 4
    assert records[2].train == {"train_loss": 0.25}


def test_federated_evaluation_summarises_the_clients_that_have_test_examples() -> None:
    _, records = run(packed_app(), rounds=1, federated_evaluate_every=1)
    scores = records[1].federated
    assert scores is not None
    assert scores.clients == ("1", "2", "3", "4", "5")  # client 0 has no test example
    assert scores.summary()["accuracy"] == pytest.approx(sum(k * k / 10 for k in range(6)) / 15)


def test_bytes_are_counted_in_both_directions() -> None:
    _, records = run(packed_app(), rounds=1)
    assert records[1].bytes_down > 2 * START.nbytes
    assert records[1].bytes_up > 2 * START.nbytes
