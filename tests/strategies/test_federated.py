"""The round loop, on models of few parameters and clients that do not train but move by a known step."""

import gc
import random
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy
from tests.strategies.scripted_world import ScriptedWorld
from tests.strategies.toy_federation import BAD, WireGrid

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


# The rules of a round, on the toy federation of `toy_federation`.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves, so that replies come in time however slow the machine is."""
    now = [1000.0]
    monkeypatch.setattr("strategies.exchange.time.monotonic", lambda: now[0])
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: now.append(now.pop() + seconds))
    return now


def too_late(reply: Message, clients: list[str]) -> list[Message]:
    return [] if BAD in clients else [reply]


@dataclass
class ShuffledGrid(WireGrid):
    """Answers in any order: a reply comes only after its message was asked for a random number of times."""

    order: random.Random = field(default_factory=lambda: random.Random(0))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([one for one in message_ids if self.order.random() < 0.3])


def train_on(grid: InlineGrid, rounds: int = 2, timeout: float = 30.0, seed: int = 7, **rules: object):
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {}),
        RoundRules(**{"limits": toy.LIMITS, **rules}),
        seed=seed,
        observers=[records.append],
    )
    result = strategy.start(grid, toy.start_arrays(), num_rounds=rounds, timeout=timeout)
    return result.arrays.to_numpy_ndarrays(), records


@pytest.mark.parametrize("clients_per_message", [0, 1, 2])
@pytest.mark.parametrize("order", range(4))
def test_the_order_of_replies_does_not_change_a_bit(order: int, clients_per_message: int) -> None:
    grid = ShuffledGrid(toy.app(), InlineGrid.of(toy.app(), 3).node_configs, order=random.Random(order))
    weights, records = train_on(grid, clients_per_message=clients_per_message)
    assert toy.same(weights, toy.run(toy.app(), nodes=1)[0])
    assert records[2].train == toy.run(toy.app(), nodes=1)[1][2].train


def test_late_clients_are_counted_and_the_others_are_what_they_were(clock: list[float]) -> None:
    grid = WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, tamper=too_late)
    weights, records = train_on(grid, timeout=100, clients_per_message=1)
    assert [record.rejected for record in records[1:]] == [{"late": 1}, {"late": 1}]
    assert toy.same(weights, toy.without(BAD))
    assert clock == [pytest.approx(1200.0)]  # two rounds have waited for as long as they may, and not longer


def test_a_reply_of_the_last_round_does_not_count_in_this_one(clock: list[float]) -> None:
    held: list[Message] = []

    def hold(reply: Message, clients: list[str]) -> list[Message]:
        if BAD not in clients:
            return [reply]
        held.append(reply)
        return held[:1] if len(held) > 1 else []

    grid = WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, tamper=hold)
    weights, records = train_on(grid, timeout=100, clients_per_message=1)
    assert [record.rejected for record in records[1:]] == [{"late": 1}, {"malformed": 1}]
    assert toy.same(weights, toy.without(BAD))


def test_a_second_reply_to_one_message_changes_nothing_and_is_counted() -> None:
    weights, records = toy.run(toy.app(), tamper=lambda reply, clients: [reply, reply])
    assert toy.same(weights, toy.run(toy.app())[0])
    assert not records[1].rejected and records[1].repeated == len(records[1].accepted) == 6


def test_a_grid_that_never_answers_ends_the_run_in_time_with_a_sentence(clock: list[float]) -> None:
    grid = WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, tamper=lambda reply, clients: [])
    with pytest.raises(StrategyError) as raised:
        train_on(grid, rounds=10, timeout=100, max_skipped_rounds=2)
    assert clock == [pytest.approx(1200.0)]
    assert str(raised.value) == (
        "The run ends after 2 skipped rounds in a row ('max-skipped-rounds'), the last because 0 of 6 clients gave a "
        "good reply, but 1 are needed ('min-replies') (the first: client 5: its reply had not come when the time was "
        "over ('round-timeout'))."
    )


def broken(*clients: str) -> dict[str, toy.Misbehaviour]:
    def raising(content: RecordDict) -> RecordDict:
        raise ValueError("no disk\nleft")

    return dict.fromkeys(clients, raising)


def test_below_min_replies_the_round_is_skipped_and_the_weights_stay() -> None:
    weights, records = toy.run(toy.app(bad=broken("3", "4")), min_replies=5, max_skipped_rounds=3)
    assert toy.same(weights, [toy.KERNEL, toy.BIAS])
    assert all(record.skipped for record in records[1:])
    assert len(records[1].accepted) == 4 and records[1].rejected == {"error": 2}
    weights, records = toy.run(toy.app(bad=broken("3", "4")), min_replies=4)
    assert not any(record.skipped for record in records)
    assert toy.same(weights, toy.without("3", "4"))


def test_the_sentence_at_the_end_holds_the_first_rejection() -> None:
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {}), RoundRules(max_skipped_rounds=3), observers=[records.append]
    )
    with pytest.raises(StrategyError, match=r"the first: client 5: ValueError: no disk left\)\.$"):
        strategy.start(InlineGrid.of(toy.app(bad=broken(*toy.IDS)), 2), toy.start_arrays(), num_rounds=10)
    assert [record.skipped for record in records] == [False, True, True, True]  # and each was told


@pytest.mark.parametrize("most", [0, 1])
def test_a_run_without_patience_ends_with_its_first_skipped_round_and_not_before(most: int) -> None:
    toy.run(toy.app(), max_skipped_rounds=most)
    with pytest.raises(StrategyError, match="after 1 skipped rounds"):
        toy.run(toy.app(bad=broken(*toy.IDS)), max_skipped_rounds=most)


def test_only_skipped_rounds_in_a_row_end_a_run() -> None:
    rounds = iter(range(1000))

    def every_other(reply: Message, clients: list[str]) -> list[Message]:
        return [reply] if next(rounds) % 2 else [Message(Error(0, "asleep"), reply_to=request_of(reply))]

    _, records = toy.run(toy.app(), nodes=1, rounds=6, tamper=every_other, max_skipped_rounds=2)
    assert [record.skipped for record in records[1:]] == [True, False] * 3


def request_of(reply: Message) -> Message:
    request = Message(RecordDict(), reply.metadata.src_node_id, "train")
    request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return request


def test_a_step_of_the_server_to_weights_that_are_not_finite_is_not_made() -> None:
    strategy = FederatedStrategy(
        registry.build("fedavg", {"server-learning-rate": 1e38}), RoundRules(max_skipped_rounds=2)
    )
    app = toy.app(bad={BAD: lambda content: _moved(content, 1e6)})
    with pytest.raises(StrategyError, match=r"not finite \('server-learning-rate'\)"), np.errstate(over="ignore"):
        strategy.start(InlineGrid.of(app, 2), toy.start_arrays(), num_rounds=5)
    strategy.rules = RoundRules(max_skipped_rounds=9)
    with np.errstate(over="ignore"):
        result = strategy.start(InlineGrid.of(app, 2), toy.start_arrays(), num_rounds=5)
    assert toy.same(result.arrays.to_numpy_ndarrays(), [toy.KERNEL, toy.BIAS])


def _moved(content: RecordDict, far: float) -> RecordDict:
    moved = {"kernel": toy.KERNEL + np.float32(far), "bias": toy.BIAS}
    return RecordDict({**content, "arrays": wire.array_record(moved)})


@dataclass
class MovingGrid(InlineGrid):
    """Node k hosts the clients 2k and 2k + 1; ``plan`` says which nodes are there, round by round."""

    plan: list[set[int]] = field(default_factory=list)
    fingerprints: dict[int, str] = field(default_factory=dict)
    calls: int = 0

    def get_node_ids(self) -> Iterable[int]:
        return self.plan[min(self.calls, len(self.plan) - 1)]

    def _execute(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "query.describe":
            infos = tuple(ClientInfo(str(client), 10 * (client + 1)) for client in (2 * node, 2 * node + 1))
            description = NodeDescription(infos, self.fingerprints.get(node, "f"))
            return Message(description.to_content(), reply_to=message)
        return super()._execute(message)


def run_moving(plan: list[set[int]], rounds: int, **fingerprints: str) -> list[RoundRecord]:
    """Train while nodes come and go: the plan's first entry is the start, then one each round."""
    nodes = sorted(set().union(*plan))
    grid = MovingGrid(toy.app(), {node: {} for node in nodes}, plan=plan)
    grid.fingerprints = {int(node[1:]): value for node, value in fingerprints.items()}
    census = Census(grid, 100.0, "f", "/here", "Update it.")
    records: list[RoundRecord] = []

    def next_round(record: RoundRecord) -> None:
        records.append(record)
        grid.calls += 1

    strategy = FederatedStrategy(registry.build("fedavg", {}), census=census, observers=[next_round])
    census.start(1, 1.0)
    strategy.start(grid, toy.start_arrays(), num_rounds=rounds, timeout=100.0)
    return records


def test_nodes_that_join_take_part_from_then_on_and_those_that_vanish_do_not(clock: list[float]) -> None:
    records = run_moving([{0, 1}, {0, 1}, {0}, {0, 2}], 3)
    assert [record.selected for record in records[1:]] == [
        ("0", "1", "2", "3"),
        ("0", "1"),
        ("0", "1", "4", "5"),
    ]
    assert all(record.accepted == record.selected for record in records)


def test_a_node_with_other_code_ends_the_start_but_is_left_out_later(clock: list[float]) -> None:
    with pytest.raises(StrategyError, match=r"Node 1 runs other code \(x from .*Update it\.$"):
        run_moving([{0, 1}], 1, n1="x")
    records = run_moving([{0}, {0, 1}, {0, 1}], 2, n1="x")
    assert [record.accepted for record in records[1:]] == [("0", "1"), ("0", "1")]


def test_rounds_without_any_node_are_skipped_and_the_run_goes_on_when_one_is_back(clock: list[float]) -> None:
    records = run_moving([{0}, {0}, set(), {0}], 3)
    assert [record.skipped for record in records[1:]] == [False, True, False]
    assert records[2].selected == ()
    with pytest.raises(
        StrategyError, match=r"\('max-skipped-rounds'\), the last because no node with clients was conn"
    ):
        run_moving([{0}, set()], 5)


def test_fewer_clients_than_asked_for_is_a_sentence_at_the_start() -> None:
    with pytest.raises(StrategyError, match="'clients-per-round' is 7, but there are only 6 clients"):
        toy.run(toy.app(), clients_per_round=7)


@pytest.mark.parametrize(("weighting", "expected"), [("examples", 91 / 21 / 3), ("uniform", 21 / 6 / 3)])
def test_stock_clients_are_averaged_under_both_weightings(weighting: str, expected: float) -> None:
    """Client k of six moves by (k + 1) / 3 and has 10 (k + 1) examples: sums of k squared and of k."""
    (kernel, bias), records = toy.run(
        toy.app(mods=False), rounds=1, nodes=1, clients_per_message=1, weighting=weighting
    )
    np.testing.assert_allclose(kernel, toy.KERNEL - expected, rtol=1e-6)
    np.testing.assert_allclose(bias, toy.BIAS + expected, rtol=1e-6)
    assert records[1].train["loss"] > 0


@pytest.mark.parametrize(("strategy", "rate"), [("fedavg", 1.0), ("trimmed-mean", 1.0), ("fedadam", 3.0)])
def test_stock_clients_in_scikit_learn_with_float64_coefficients(strategy: str, rate: float) -> None:
    """A linear classifier whose arrays are float64 of shapes (10, 64) and (10,), as scikit-learn keeps them."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        part = slice(int(context.node_config["partition-id"]), None, 4)
        model = SGDClassifier(loss="log_loss", random_state=0)
        model.partial_fit(x[part][:1], y[part][:1], classes=np.arange(10))
        model.coef_, model.intercept_ = (array.copy() for array in message.content["arrays"].to_numpy_ndarrays())
        model.partial_fit(x[part], y[part])
        metrics = MetricRecord({"num-examples": len(y[part])})
        content = {"arrays": ArrayRecord([model.coef_, model.intercept_]), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    ours = FederatedStrategy(registry.build(strategy, {"server-learning-rate": rate}))
    start = ArrayRecord([np.zeros((10, 64)), np.zeros(10)])
    result = ours.start(InlineGrid.of(app, 4), start, num_rounds=8)
    coefficients, intercept = result.arrays.to_numpy_ndarrays()
    assert (coefficients.dtype, coefficients.shape, intercept.shape) == (np.float64, (10, 64), (10,))
    assert float(np.mean(np.argmax(x @ coefficients.T + intercept, axis=1) == y)) > 0.9


def test_scalars_and_counters_in_a_model_keep_shape_and_dtype_over_rounds() -> None:
    app = ClientApp()

    @app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        count, scale = wire.read_weights(wire.arrays_of(message.content, "arrays")).arrays
        local = {"count": count + 1, "scale": (scale * 2).astype(np.float16)}
        content = {"arrays": wire.array_record(local), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    start = wire.array_record({"count": np.array(5, np.int64), "scale": np.ones((1, 2), np.float16)})
    result = FederatedStrategy(registry.build("fedavg", {})).start(InlineGrid.of(app, 3), start, num_rounds=3)
    count, scale = result.arrays.to_numpy_ndarrays()
    assert (count.shape, count.dtype, int(count)) == ((), np.int64, 8)
    assert scale.dtype == np.float16 and scale.tolist() == [[8, 8]]


@pytest.mark.parametrize("clients_per_message", [0, 1])
def test_flowers_own_loop_trains_with_our_strategy(clients_per_message: int) -> None:
    strategy = FederatedStrategy(
        registry.build("fedavg", {}), RoundRules(limits=toy.LIMITS, clients_per_message=clients_per_message), seed=7
    )
    seen: list[int] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        return MetricRecord({"first": float(arrays["kernel"].numpy()[0, 0])})

    result = Strategy.start(
        strategy, InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=2, timeout=10, evaluate_fn=evaluate
    )
    assert toy.same(result.arrays.to_numpy_ndarrays(), toy.run(toy.app())[0])
    assert seen == [0, 1, 2]
    assert sorted(result.train_metrics_clientapp) == [1, 2]
    assert dict(result.evaluate_metrics_clientapp[2])["clients"] == 5


def test_the_four_methods_work_one_by_one() -> None:
    strategy = FederatedStrategy(registry.build("fedavg", {}), RoundRules(limits=toy.LIMITS), seed=7)
    grid = InlineGrid.of(toy.app(), 2)
    requests = list(strategy.configure_train(1, toy.start_arrays(), ConfigRecord({"learning-rate": 1}), grid))
    assert sorted(request.metadata.dst_node_id for request in requests) == [1, 2]
    arrays, metrics = strategy.aggregate_train(1, grid.send_and_receive(requests))
    assert arrays is not None and metrics is not None
    assert toy.same(arrays.to_numpy_ndarrays(), toy.run(toy.app(), rounds=1)[0])
    requests = list(strategy.configure_evaluate(1, arrays, ConfigRecord(), grid))
    scores = strategy.aggregate_evaluate(1, grid.send_and_receive(requests))
    assert scores is not None and scores["clients"] == 5


def test_aggregating_nothing_skips_and_before_configuring_it_is_a_mistake() -> None:
    strategy = FederatedStrategy(registry.build("fedavg", {}))
    with pytest.raises(StrategyError, match="before configure_train"):
        strategy.aggregate_train(1, [])
    grid = InlineGrid.of(toy.app(), 2)
    strategy.configure_train(1, toy.start_arrays(), ConfigRecord(), grid)
    assert strategy.aggregate_train(1, []) == (None, None)
    strategy.configure_evaluate(1, toy.start_arrays(), ConfigRecord(), grid)
    assert strategy.aggregate_evaluate(1, []) is None


def test_the_clients_that_evaluate_can_be_a_sample_which_the_seed_alone_decides() -> None:
    samples = [
        toy.run(toy.app(), nodes=nodes, federated_evaluate_every=1, federated_evaluate_clients=3)[1][1].federated
        for nodes in (1, 3)
    ]
    assert samples[0] == samples[1]
    assert samples[0] is not None and len(samples[0].clients) in (2, 3)  # client 0 has no test example


def test_bytes_are_those_that_flower_would_push() -> None:
    grid = WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, keep=True)
    pushed: list[Message] = []
    push = grid.push_messages
    grid.push_messages = lambda messages: push(pushed.extend(messages) or messages)  # type: ignore[method-assign]
    _, records = train_on(grid, rounds=1)

    def size(messages: list[Message]) -> int:
        trains = [message for message in messages if message.metadata.message_type == "train"]
        return sum(len(part.deflate()) for message in trains for part in get_all_nested_objects(message).values())

    assert records[1].bytes_down == size(pushed)
    assert records[1].bytes_up == size(grid.received)


def test_no_reply_is_kept_once_it_is_folded() -> None:
    alive: list[weakref.ref[Message]] = []
    most = 0

    def watch(reply: Message, clients: list[str]) -> list[Message]:
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(reply))
        return [reply]

    gc.freeze()  # what is looked through is what the run makes, and not all of TensorFlow beside it
    try:
        toy.run(toy.app(), rounds=3, clients_per_message=1, tamper=watch)
    finally:
        gc.unfreeze()
    assert len(alive) == 18
    assert most <= 1  # while the next is made, at most the one before


# More clients than a round needs.


def select(grid: InlineGrid, rounds: int = 1, over: float = 2.0, **rules: object):
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"clients-per-round": 3, "over-selection": over}),
        RoundRules(**{"limits": toy.LIMITS, **rules}),
        seed=7,
        observers=[records.append],
    )
    result = strategy.start(grid, toy.start_arrays(), num_rounds=rounds, timeout=30.0)
    return result.arrays.to_numpy_ndarrays(), records[1:]


def test_a_round_ends_with_as_many_good_updates_as_it_needs(clock: list[float]) -> None:
    """Client 3 never answers and 5 fails: the first three of the others count, and nobody waits for more."""
    bad = {"5": broken("5")["5"]}
    grid = WireGrid(toy.app(bad=bad), InlineGrid.of(toy.app(), 2).node_configs, tamper=too_late)
    weights, (record,) = select(grid, clients_per_message=1)
    assert len(record.selected) == 6 and len(record.accepted) == 3
    assert record.rejected == {"surplus": 2, "error": 1} or record.rejected == {"surplus": 3}
    others = [client for client in toy.IDS if client not in record.accepted]
    assert toy.same(weights, toy.without(*others, rounds=1))
    assert clock[0] < 1001.0


def test_surplus_updates_of_one_reply_do_not_count_where_they_can_be_told_apart() -> None:
    grid = InlineGrid.of(toy.app(), 1)
    _, (packed,) = select(grid)
    assert len(packed.accepted) == 6  # one exact sum: it counts whole
    _, records = select(InlineGrid.of(toy.app(), 3), rounds=2)
    assert all(len(record.accepted) == 4 for record in records)  # two sums of two


def test_without_over_selection_every_client_is_waited_for() -> None:
    _, (record,) = select(InlineGrid.of(toy.app(), 2), over=1.0)
    assert len(record.selected) == len(record.accepted) == 3


# In a simulated world.


def in_world(world: ScriptedWorld, rounds: int = 2, options: dict | None = None, **rules: object) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    composition = registry.build("fedavg", {"clients-per-round": 2, **(options or {})})
    strategy = FederatedStrategy(composition, RoundRules(**rules), seed=7, observers=[records.append])
    strategy.start(world, wire.array_record({"w": np.zeros(3, np.float32)}), num_rounds=rounds, timeout=1000.0)
    return records


def test_rounds_show_simulated_seconds_and_requests_the_rules_of_the_world() -> None:
    world = ScriptedWorld.with_nodes(count=6, duration=lambda start: 4.0)
    records = in_world(world, 3, {"over-selection": 1.5}, round_deadline=9.0)
    assert [record.simulated_seconds for record in records] == [0.0, 4.0, 8.0, 12.0]
    configs = [wire.config_of(message) for message in world.sent]
    assert {(config[wire.DEADLINE], config[wire.GOAL]) for config in configs} == {(9.0, 2)}
    assert {(c[wire.DEADLINE], c[wire.GOAL]) for c in map(wire.config_of, world_without_rules().sent)} == {(0.0, 0)}


def world_without_rules() -> ScriptedWorld:
    world = ScriptedWorld.with_nodes()
    in_world(world, 1)
    return world


def test_in_a_world_every_reply_is_taken_as_the_world_has_chosen_already() -> None:
    """The scripted world rejects nobody: so more count than the goal, and none is called surplus by the server."""
    records = in_world(ScriptedWorld.with_nodes(count=6), 2, {"over-selection": 2.0}, clients_per_message=1)
    assert [len(record.accepted) for record in records[1:]] == [4, 4]
    assert all(not record.rejected for record in records)


def test_only_clients_that_are_online_are_selected() -> None:
    world = ScriptedWorld.with_nodes(count=6, away=lambda client, now: (int(client) + int(now)) % 2 == 0)
    records = in_world(world, 6)
    for before, record in pairwise(records):
        assert all((int(client) + int(before.simulated_seconds or 0)) % 2 for client in record.selected)
        assert len(record.selected) == 2


def test_a_round_begins_when_somebody_is_online() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: now < 50)
    assert [record.simulated_seconds for record in in_world(world)] == [0.0, 51.0, 52.0]


def test_a_round_for_which_nobody_will_ever_be_online_is_skipped_with_a_sentence() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: now >= 2)
    world.wait_for_clients = lambda banned=(): False  # type: ignore[method-assign]
    with pytest.raises(StrategyError, match="the last because no client is online, and none will ever be"):
        in_world(world, 9)


# What a round costs.


def test_the_population_is_put_together_once_and_again_when_nodes_change(clock: list[float]) -> None:
    grid = MovingGrid(toy.app(), {0: {}, 1: {}}, plan=[{0, 1}])
    census = Census(grid, 100.0)
    census.start(1, 1.0)
    first = census.population()
    census.refresh()
    assert census.population() is first
    grid.plan = [{0}]
    census.refresh()
    assert census.population().ids == ("0", "1") and census.population() is census.population()


def test_a_round_touches_only_the_clients_of_its_cohort() -> None:
    grid = InlineGrid.of(toy.app([str(number) for number in range(5000)]), 2)
    touched = []

    class Watched(tuple):
        def __iter__(self):
            raise AssertionError("somebody went through the whole population")

        def __getitem__(self, place):
            touched.append(place)
            return super().__getitem__(place)

    strategy = FederatedStrategy(
        registry.build("fedavg", {"clients-per-round": 20}), RoundRules(federated_evaluate_clients=7)
    )
    strategy.census = census = Census(grid, 10.0)
    census.start(1, 1.0)
    population = census.population()
    population.clients, population.ids = Watched(population.clients), Watched(population.ids)
    arrays = toy.start_arrays()
    for number in range(1, 4):
        messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        strategy.aggregate_train(number, grid.send_and_receive(messages))
        strategy.configure_evaluate(number, arrays, ConfigRecord(), grid)
    assert len(touched) == 3 * (20 + 7)
