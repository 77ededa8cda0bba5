"""The model in fewer bytes: clients begin from what arrives, the server goes on from its own, everywhere the same."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods
from strategies.compression.codec import Dense
from strategies.compression.downlink import NAMES, Broadcast, downlink_of
from strategies.compression.registry import codec_of
from strategies.describe import NodeDescription
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy

ROUGH: list[dict[str, Option]] = [
    {"downlink": "float16"},
    {"downlink": "qsgd"},
    {"downlink": "qsgd", "downlink-bits": 3},
]
SIZE = 600
STEP = np.float32(2.0**-10)


def start_arrays() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    return {"kernel": values[:-6].reshape(99, 6), "bias": values[-6:]}


def app(seen: dict[tuple[str, int, str], bytes], mods: bool = True) -> ClientApp:
    """Clients that move every weight by a step, and take down what they were sent."""
    client_app = ClientApp()
    wrap = client_mods() if mods else []

    def received(message: Message) -> list[np.ndarray]:
        arrays = [wire.decode(array) for array in wire.arrays_of(message.content, wire.ARRAYS).values()]
        config = wire.config_of(message)
        key = message.metadata.message_type, int(wire.number(config, wire.ROUND)), wire.text(config, wire.CLIENT)
        seen[key] = b"".join(array.tobytes() for array in arrays)
        return arrays

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(client, 10) for client in toy.IDS)
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    @client_app.train(mods=wrap)
    def train(message: Message, context: Context) -> Message:
        moved = [array + STEP for array in received(message)]
        arrays = wire.array_record(dict(zip(start_arrays(), moved, strict=True)))
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10})}), reply_to=message)

    @client_app.evaluate(mods=wrap)
    def evaluate(message: Message, context: Context) -> Message:
        received(message)
        metrics = MetricRecord({"num-examples": 1, "loss": 1.0, "accuracy": 0.5})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return client_app


def run(
    options: dict[str, Option], rounds: int = 3, nodes: int = 2, wired: bool = False, **rules: int
) -> tuple[np.ndarray, dict[tuple[str, int, str], bytes], list[RoundRecord]]:
    """Return the weights in the end, what each client was sent, and the records."""
    seen: dict[tuple[str, int, str], bytes] = {}
    records: list[RoundRecord] = []
    client_app = app(seen)
    configs = InlineGrid.of(client_app, nodes).node_configs
    strategy = FederatedStrategy(
        registry.build("fedavg", options),
        RoundRules(federated_evaluate_every=2, **rules),
        observers=[records.append],
    )
    grid = toy.WireGrid(client_app, configs) if wired else InlineGrid(client_app, configs)
    result = strategy.start(grid, wire.array_record(start_arrays()), num_rounds=rounds)
    return flat(result.arrays), seen, records


def flat(record: ArrayRecord) -> np.ndarray:
    return np.concatenate([wire.decode(array).ravel() for array in record.values()])


def start() -> np.ndarray:
    return flat(wire.array_record(start_arrays()))


@pytest.mark.parametrize("options", ROUGH, ids=str)
def test_the_servers_own_weights_stay_exact(options: dict[str, Option]) -> None:
    """Every client adds a step to whatever it is sent: after three rounds the server has added three to its own."""
    moved, seen, _ = run(options)
    np.testing.assert_allclose(moved, start() + 3 * STEP, atol=2e-6)
    assert seen["train", 1, "0"] != start().tobytes()


@pytest.mark.parametrize("options", [{}, {"downlink": "zstd"}])
def test_without_loss_nothing_changes(options: dict[str, Option]) -> None:
    moved, seen, _ = run(options)
    assert seen["train", 1, "0"] == start().tobytes()
    assert moved.tobytes() == run({})[0].tobytes()


def test_float16_is_what_numpy_makes_of_it() -> None:
    _, seen, _ = run({"downlink": "float16"})
    assert seen["train", 1, "0"] == start().astype(np.float16).astype(np.float32).tobytes()


@pytest.mark.parametrize("options", ROUGH, ids=str)
def test_all_clients_begin_from_the_same_bits_packed_or_not(options: dict[str, Option]) -> None:
    moved, seen, _ = run(options)
    for number in (1, 2, 3):
        assert len({seen["train", number, client] for client in toy.IDS}) == 1
    assert len({seen["evaluate", 2, client] for client in toy.IDS}) == 1
    for nodes, wired, alone in ((1, False, 0), (3, True, 1), (2, True, 0)):
        again, told, _ = run(options, 3, nodes, wired, clients_per_message=alone)
        assert again.tobytes() == moved.tobytes()
        assert told == seen


def test_rounding_is_drawn_anew_in_every_round() -> None:
    """Else the model would be off in the same direction in all rounds."""
    codec, weights = downlink_of({"downlink": "qsgd", "downlink-bits": 2}), wire.array_record(start_arrays())
    mean, read = np.zeros(SIZE), wire.read_weights(weights)
    for seed in range(400):
        mean += Broadcast.of(codec, weights, read, seed).start.flat / 400
    one = np.abs(Broadcast.of(codec, weights, read, 0).start.flat - start()).mean()
    assert np.abs(mean - start()).mean() < one / 10  # 1/20 is expected of 400


def test_it_is_fewer_bytes() -> None:
    """As Flower sends them, headers and settings and all, with every client alone."""
    dense, halves, eighths = (
        run(options, 1, clients_per_message=1)[2][1].bytes_down
        for options in ({}, {"downlink": "float16"}, {"downlink": "qsgd", "downlink-bits": 4})
    )
    messages = 2 * len(toy.IDS)  # to train, and to evaluate
    saved = messages * SIZE * np.array([2.0, 3.5])
    np.testing.assert_allclose([dense - halves, dense - eighths], saved, atol=messages * 400)


@pytest.mark.parametrize("name", ["fedavg", "fedbuff", "median", "scaffold"])
def test_any_strategy_goes_with_it(name: str) -> None:
    assert registry.build(name, {"downlink": "float16"}).downlink == codec_of({"codec": "float16"})
    assert registry.build(name, {}).downlink == Dense()


def test_a_model_of_whole_numbers_is_refused() -> None:
    arrays = wire.array_record({"seed": np.arange(4, dtype=np.uint32), "kernel": np.ones(4, np.float32)})
    with pytest.raises(StrategyError, match="arrays of uint32, which must not be rounded: set 'downlink' to 'none'"):
        Broadcast.of(downlink_of({"downlink": "float16"}), arrays, wire.read_weights(arrays), 0)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(StrategyError, match="'downlink' is 'top-k', but must be one of"):
        downlink_of({"downlink": "top-k"})
    with pytest.raises(StrategyError, match="'downlink-bits' is 9, but must be from 1 to 8"):
        downlink_of({"downlink": "qsgd", "downlink-bits": 9})


def test_a_request_that_names_another_array_is_the_clients_error() -> None:
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"downlink": "float16"}), RoundRules(max_skipped_rounds=2), observers=[records.append]
    )
    client_app = app({})
    grid = InlineGrid.of(client_app, 1)
    (message,) = strategy.configure_train(1, wire.array_record(start_arrays()), wire.settings_of(RecordDict()), grid)
    assert NAMES in wire.config_of(message)
    message.content[wire.ARRAYS] = wire.array_record({"other": np.ones(3, np.float32)})
    (reply,) = grid.pull_messages(grid.push_messages([message]))
    assert reply.content[wire.PACK][wire.REASONS] == ["malformed"] * len(toy.IDS)
