"""FedBuff: by hand, against a brute-force simulation of the paper's algorithm 1, and equal to rounds where it must."""

import gc
import heapq
import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.fedbuff import PATIENCE, BufferedStrategy, strategy_class
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.pace import Buffered
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.samplers import UniformSampler
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy
from tests.strategies.scripted_world import SIZE, Delta, ScriptedWorld, Start, examples

UP, LEFT = np.array([1, 0, 0.5], np.float32), np.array([0, 10, 0], np.float32)


def fedbuff(**options: Option) -> Composition:
    return registry.build("fedbuff", {"weighting": "uniform", **{k.replace("_", "-"): v for k, v in options.items()}})


def train(
    world: InlineGrid, composition: Composition, steps: int, timeout: float = 1000.0, **rules: object
) -> tuple[np.ndarray, list[RoundRecord]]:
    records: list[RoundRecord] = []
    strategy = strategy_class(composition)(
        composition,
        RoundRules(**rules),  # type: ignore[arg-type]
        seed=3,
        round_config=lambda number: {"learning-rate": 1 / number},
        observers=[records.append],
    )
    start = wire.array_record({"weights": np.zeros(SIZE, np.float32)})
    result = strategy.start(world, start, num_rounds=steps, timeout=timeout)
    return result.arrays.to_numpy_ndarrays()[0], records[1:]


def two_speeds(**script: object) -> ScriptedWorld:
    """Client 0 moves by UP and takes 1 s, client 1 moves by LEFT and takes 2.5 s."""
    return ScriptedWorld.with_nodes(
        count=2,
        duration=lambda start: 1.0 if start[0] == "0" else 2.5,
        delta=lambda start, weights: UP if start[0] == "0" else LEFT,
        **script,
    )


def test_a_schedule_by_hand() -> None:
    """Steps at 1 s and 2 s (client 0, fresh), 2.5 s (client 1, missed two), 3 s (client 0, missed one)."""
    weights, records = train(two_speeds(), fedbuff(buffer_size=1, concurrency=2), 4)
    np.testing.assert_allclose(weights, (2 + 2**-0.5) * UP + 3**-0.5 * LEFT, rtol=1e-6)
    assert [record.simulated_seconds for record in records] == [1.0, 2.0, 2.5, 3.0]
    assert [record.accepted for record in records] == [("0",), ("0",), ("1",), ("0",)]
    assert [record.staleness for record in records] == [
        {"mean": float(missed), "largest": float(missed)} for missed in (0, 0, 2, 1)
    ]
    assert [record.learning_rate for record in records] == [1, 1 / 2, 1 / 3, 1 / 4]


def test_age_shortens_the_step_and_is_not_divided_away() -> None:
    """A buffer of two by hand, weighted 10 and 20: at 2 s twice client 0, at 3 s client 1 (missed one) and client 0."""
    composition = fedbuff(buffer_size=2, concurrency=2, weighting="examples", staleness_exponent=1)
    weights, records = train(two_speeds(), composition, 2)
    second = (20 * LEFT / 2 + 10 * UP) / (20 + 10)
    np.testing.assert_allclose(weights, UP + second, rtol=1e-6)
    assert [record.accepted for record in records] == [("0", "0"), ("0", "1")]
    assert records[1].staleness == {"mean": 0.5, "largest": 1.0}
    assert records[1].train["loss"] == pytest.approx(20 / 30)  # the clients' losses are their numbers


def test_with_an_exponent_of_zero_age_counts_nothing() -> None:
    weights, _ = train(two_speeds(), fedbuff(buffer_size=1, concurrency=2, staleness_exponent=0), 4)
    np.testing.assert_allclose(weights, 3 * UP + LEFT, rtol=1e-6)


# Against brute force.


@dataclass
class Algorithm1:
    """Nguyen et al. 2022, algorithm 1, in float64 and with a heap of events: nothing of it is ours but the sampler."""

    count: int
    buffer_size: int
    concurrency: int
    exponent: float
    max_staleness: int
    weighted: bool
    duration: object
    delta: Delta
    model: np.ndarray = field(default_factory=lambda: np.zeros(SIZE))
    log: list[list[tuple[str, int]]] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def stream(self) -> Iterator[str]:
        clients = [ClientInfo(str(number)) for number in range(self.count)]
        cohort = 0
        while True:
            cohort += 1
            yield from UniformSampler(2).sample(cohort, clients, 3)

    def run(self, steps: int) -> None:
        stream, now, begun = self.stream(), 0.0, dict.fromkeys(map(str, range(self.count)), 0)
        events: list[tuple[float, str, int, np.ndarray, int]] = []
        total, weight, step, bad, taken = np.zeros(SIZE), 0.0, 0, 0, []
        while True:
            while len(events) < self.concurrency:
                client = next(stream)
                if client not in [event[1] for event in events]:
                    took = self.duration((client, begun[client], step))
                    heapq.heappush(events, (now + took, client, step, self.model.copy(), begun[client]))
                    begun[client] += 1
            now = events[0][0]
            while events and events[0][0] == now:  # the heap sorts those of one instant by client
                _, client, base, model, before = heapq.heappop(events)
                delta = self.delta((client, before, base), model.astype(np.float32))
                missed = step - base
                if delta is None or (self.max_staleness and missed > self.max_staleness):
                    bad += 1
                    continue
                share = examples(client) if self.weighted else 1.0
                total = total + share * delta.astype(np.float64) / (1 + missed) ** self.exponent
                weight += share
                taken.append((client, missed))
                if len(taken) == self.buffer_size:
                    self.model = self.model + total / weight
                    self.log.append(taken)
                    self.rejected.append(bad)
                    self.times.append(now)
                    total, weight, step, bad, taken = np.zeros(SIZE), 0.0, step + 1, 0, []
                    if step == steps:
                        return


@given(
    st.integers(2, 6).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count))),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0, 2]),
    st.booleans(),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_random_schedules_equal_a_simulation_of_the_papers_algorithm(
    sizes: tuple[int, int], buffer_size: int, exponent: float, max_staleness: int, weighted: bool, seed: int
) -> None:
    count, concurrency = sizes

    def number(start: Start, purpose: int) -> float:
        return float(np.random.default_rng([seed, purpose, int(start[0]), start[1]]).random())

    def duration(start: Start) -> float:
        return 1.0 + math.floor(4 * number(start, 1)) / 2  # many finish at one instant

    def delta(start: Start, weights: np.ndarray) -> np.ndarray | None:
        if number(start, 2) < 0.2:
            return None
        target = np.array([int(start[0]), 1, number(start, 3)], np.float32)
        return (target - weights) * np.float32(0.3)

    oracle = Algorithm1(count, buffer_size, concurrency, exponent, max_staleness, weighted, duration, delta)
    oracle.run(8)
    world = ScriptedWorld.with_nodes(count=count, duration=duration, delta=delta)
    weights, records = train(
        world,
        fedbuff(
            buffer_size=buffer_size,
            concurrency=concurrency,
            staleness_exponent=exponent,
            max_staleness=max_staleness,
            weighting="examples" if weighted else "uniform",
            clients_per_round=2,
        ),
        8,
    )
    np.testing.assert_allclose(weights, oracle.model, rtol=2e-5, atol=1e-6)
    assert [record.accepted for record in records] == [
        tuple(sorted(client for client, _ in step)) for step in oracle.log
    ]
    assert [record.staleness for record in records] == [
        {"mean": pytest.approx(np.mean([m for _, m in step])), "largest": max(m for _, m in step)}
        for step in oracle.log
    ]
    assert [sum(record.rejected.values()) for record in records] == oracle.rejected
    assert [record.simulated_seconds for record in records] == oracle.times


# Equal to rounds.


def pull(start: Start, weights: np.ndarray) -> np.ndarray:
    """Thirds, so that sums round, and another step from every model."""
    return (np.float32(int(start[0]) / 3) - weights) / np.float32(7)


@pytest.mark.parametrize("cohort", [0, 1, 4, 6])
@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_equal_durations_and_a_buffer_of_the_cohort_are_the_synchronous_run_to_the_bit(
    cohort: int, weighting: str
) -> None:
    options: dict[str, Option] = {"clients-per-round": cohort, "weighting": weighting}
    rounds, buffered = ScriptedWorld.with_nodes(count=6, delta=pull), ScriptedWorld.with_nodes(count=6, delta=pull)
    expected, synchronous = train(rounds, registry.build("fedavg", options), 5)
    weights, records = train(buffered, registry.build("fedbuff", {**options, "buffer-size": cohort or 6}), 5)
    assert weights.tobytes() == expected.tobytes() and np.abs(weights).max() > 0
    assert all(record.staleness == {"mean": 0.0, "largest": 0.0} for record in records)
    assert all(record.staleness is None for record in synchronous)
    for ours, theirs in zip(records, synchronous, strict=True):
        assert (ours.accepted, ours.train, ours.simulated_seconds) == (
            theirs.accepted,
            theirs.train,
            theirs.simulated_seconds,
        )
    assert seeds(buffered) == seeds(rounds)


def seeds(world: ScriptedWorld) -> set[tuple[int, str, int]]:
    configs = [wire.config_of(message) for message in world.sent]
    return {
        (int(wire.number(config, "round")), client, seed)
        for config in configs
        for client, seed in zip(wire.text_list(config, "clients"), wire.int_list(config, "seeds"), strict=True)
    }


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_order_within_an_instant_and_the_nodes_change_nothing(nodes: int) -> None:
    def run(reverse: bool, nodes: int) -> tuple[bytes, list[object]]:
        world = ScriptedWorld.with_nodes(
            nodes, count=6, delta=pull, duration=lambda start: 1.0 + int(start[0]) % 2, reverse=reverse
        )
        weights, records = train(world, fedbuff(buffer_size=3, concurrency=4), 9)
        told = [(record.selected, record.accepted, record.staleness, record.simulated_seconds) for record in records]
        return weights.tobytes(), told

    assert run(True, nodes) == run(False, 2)


def test_a_request_is_for_one_client_names_its_base_and_seeds_every_start_anew() -> None:
    world = two_speeds()
    train(world, fedbuff(buffer_size=3, concurrency=2), 3)
    configs = [wire.config_of(message) for message in world.sent]
    assert all(len(wire.text_list(config, "clients")) == 1 for config in configs)
    # Client 0 is back every second, client 1 at 2.5 s and 5 s: steps at 2.5 s, at 5 s (client 0, then the buffer is
    # full) and, as client 1 comes at that instant too, at 7 s.
    assert [(time, base) for time, (client, _, base) in world.starts if client == "1"] == [(0, 0), (2.5, 1), (5, 2)]
    assert [base for _, (client, _, base) in world.starts if client == "0"] == [0, 0, 0, 1, 1, 2, 2]
    every = [wire.int_list(config, "seeds")[0] for config in configs]
    assert len(set(every)) == len(every)  # client 0 has begun three times from the first model
    assert {config["summed"] for config in configs} == {""}


def test_nobody_trains_twice_at_a_time_and_all_slots_are_filled() -> None:
    world = ScriptedWorld.with_nodes(count=7, duration=lambda start: 1.0 + (int(start[0]) * 3 + start[1]) % 4)
    train(world, fedbuff(buffer_size=2, concurrency=5, clients_per_round=3), 12)
    spans: dict[str, list[tuple[float, float]]] = {}
    for time, start in world.starts:
        spans.setdefault(start[0], []).append((time, time + world.duration(start)))
    assert all(end <= begin for each in spans.values() for (_, end), (begin, _) in pairwise(each))
    moments = sorted(set(world.arrivals))[:-1]
    for moment in moments:
        assert sum(begin <= moment < end for each in spans.values() for begin, end in each) == 5


def test_only_models_that_somebody_trains_from_are_kept() -> None:
    """Client 0 is back every second, client 1 after five: of fourteen models few are in use."""
    world = two_speeds()
    world.duration = lambda start: 1.0 if start[0] == "0" else 5.0
    alive: list[int] = []
    models: list[weakref.ref[ArrayRecord]] = []

    def watch(message: Message) -> None:
        if message.metadata.message_type != "train":
            return
        models.append(weakref.ref(wire.arrays_of(message.content, "arrays")))
        world.sent.clear()
        if len(models) > 12:
            gc.collect()
            alive.append(len({id(model()) for model in models if model() is not None}))

    execute = world._execute
    world._execute = lambda message: (watch(message), execute(message))[1]  # type: ignore[method-assign]
    world.count = 2
    strategy = BufferedStrategy(fedbuff(buffer_size=1, concurrency=2), seed=3)
    strategy.start(world, wire.array_record({"weights": np.zeros(SIZE, np.float32)}), 14, 100.0)
    assert max(alive) <= 4  # client 1's, client 0's, the present, and the last one that was read in this process


# What goes wrong.


def test_updates_older_than_the_bound_are_rejected_and_free_their_slot() -> None:
    weights, records = train(two_speeds(), fedbuff(buffer_size=1, concurrency=2, max_staleness=1), 4)
    np.testing.assert_allclose(weights, 4 * UP, rtol=1e-6)  # client 1 has always missed two steps
    assert [record.rejected for record in records] == [{}, {}, {"stale": 1}, {}]
    _, records = train(two_speeds(), fedbuff(buffer_size=1, concurrency=2, max_staleness=2), 4)
    assert [record.rejected for record in records] == [{}] * 4


def test_clients_that_fail_free_their_slot_and_are_counted() -> None:
    world = ScriptedWorld.with_nodes(
        count=4,
        delta=lambda start, weights: (
            None if start[0] == "2" else (np.full(SIZE, np.nan, np.float32) if start[0] == "3" else UP)
        ),
    )
    weights, records = train(world, fedbuff(buffer_size=4, concurrency=4), 3)
    np.testing.assert_allclose(weights, 3 * UP)
    assert all(len(record.accepted) == 4 for record in records)
    total = {reason: sum(record.rejected.get(reason, 0) for record in records) for reason in ("error", "not-finite")}
    assert total["error"] >= 3 and total["not-finite"] >= 3
    assert all(len(record.selected) == 4 + sum(record.rejected.values()) for record in records)


def test_where_all_fail_the_run_ends_with_a_sentence() -> None:
    world = ScriptedWorld.with_nodes(count=4, delta=lambda start, weights: None)
    with pytest.raises(StrategyError, match=r"after 2 skipped rounds.*\(the first: client 0: RuntimeError: no battery"):
        train(world, fedbuff(buffer_size=2, concurrency=4), 9, max_skipped_rounds=2)
    assert len(world.sent) == 2 * PATIENCE * 4


def test_a_client_that_never_finishes_is_late_and_its_slot_is_free_again() -> None:
    world = two_speeds()
    world.duration = lambda start: math.inf if start == ("1", 0, 0) else 1.0
    _, records = train(world, fedbuff(buffer_size=4, concurrency=2), 3, timeout=6.5)
    assert [record.accepted for record in records] == [("0",) * 4, ("0", "0", "0", "1"), ("0", "0", "1", "1")]
    assert [record.rejected for record in records] == [{}, {"late": 1}, {}]


def test_a_step_whose_time_is_over_is_made_with_what_there_is() -> None:
    weights, records = train(two_speeds(), fedbuff(buffer_size=9, concurrency=2), 2, timeout=3.2, min_replies=4)
    assert [record.accepted for record in records] == [("0", "0", "0", "1")] * 2
    assert [record.simulated_seconds for record in records] == [3.2, 6.4]
    weights, records = train(
        two_speeds(), fedbuff(buffer_size=9, concurrency=2), 2, timeout=3.2, min_replies=5, max_skipped_rounds=9
    )
    assert all(record.skipped for record in records) and not weights.any()


def test_clients_slower_than_the_timeout_are_late_as_in_rounds() -> None:
    world = ScriptedWorld.with_nodes(duration=lambda start: 2.5)
    _, records = train(world, fedbuff(buffer_size=4, concurrency=4), 3, timeout=2.5)
    assert not any(record.skipped for record in records)
    world.duration = lambda start: 5.0
    with pytest.raises(StrategyError, match="client 0: its reply had not come when the time was over"):
        train(world, fedbuff(concurrency=4), 3, timeout=2.0, max_skipped_rounds=1)


def test_clients_begin_only_while_they_are_online() -> None:
    world = ScriptedWorld.with_nodes(count=4, away=lambda client, now: client == "3" or now < 5)
    train(world, fedbuff(buffer_size=2, concurrency=4), 4)
    assert min(time for time, _ in world.starts) == 5.0
    assert {start[0] for _, start in world.starts} == {"0", "1", "2"}
    with pytest.raises(StrategyError, match=r"no client is online, and none will ever be"):
        train(ScriptedWorld.with_nodes(never_online=True), fedbuff(concurrency=2), 9)


def test_evaluations_go_on_beside_the_training() -> None:
    world = two_speeds()
    composition = fedbuff(buffer_size=1, concurrency=2)
    records: list[RoundRecord] = []
    strategy = BufferedStrategy(composition, RoundRules(federated_evaluate_every=1), observers=[records.append])
    central: list[float] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        central.append(float(wire.read_weights(arrays).flat[0]))
        return MetricRecord({"first": central[-1]})

    strategy.start(world, wire.array_record({"w": np.zeros(SIZE, np.float32)}), 3, 100.0, evaluate_fn=evaluate)
    assert central == [0.0, 1.0, 2.0, 2.0]
    assert [record.central for record in records] == [{"first": value} for value in central]
    assert [record.federated.clients for record in records[1:] if record.federated] == [("1",)] * 3  # 0 has no examples


# Over a grid that has to be polled, as in a deployment.


def test_over_a_polled_grid_replies_are_taken_as_they_come() -> None:
    grid = toy.WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs)
    records: list[RoundRecord] = []
    composition = registry.build("fedbuff", {"buffer-size": 3, "concurrency": 4})
    strategy = BufferedStrategy(composition, RoundRules(limits=toy.LIMITS), seed=7, observers=[records.append])
    result = strategy.start(grid, toy.start_arrays(), num_rounds=10, timeout=30.0)
    assert all(len(record.accepted) == 3 and not record.rejected for record in records[1:])
    assert all(record.simulated_seconds is None and record.bytes_down and record.bytes_up for record in records[1:])
    assert max(record.staleness["largest"] for record in records[1:] if record.staleness) >= 1
    assert np.isfinite(result.arrays.to_numpy_ndarrays()[0]).all()


def test_a_lost_message_is_a_failure_of_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = toy.WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs)
    push = grid.push_messages

    def lossy(messages: list[Message]) -> list[str]:
        ids = list(push(messages))
        trains = [message.metadata.message_type == "train" for message in messages]
        return [one for one, train in zip(ids, trains, strict=True) if not (train and int(one[8:]) % 5 == 0)]

    monkeypatch.setattr(grid, "push_messages", lossy)
    _, records = train_toy(grid)
    assert sum(record.rejected.get("not-sent", 0) for record in records) > 2
    assert all(len(record.accepted) == 3 for record in records)


def test_clients_that_never_answer_are_late_in_the_very_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = toy.WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs)
    push = grid.push_messages

    def deaf(messages: list[Message]) -> list[str]:
        heard = [message for message in messages if message.metadata.message_type != "train"]
        list(push(heard))
        for number, message in enumerate(messages):
            if message not in heard:
                message.metadata.__dict__["_message_id"] = f"unheard-{message.metadata.dst_node_id}-{number}"
        return [message.metadata.message_id for message in messages]

    monkeypatch.setattr(grid, "push_messages", deaf)
    composition = registry.build("fedbuff", {"buffer-size": 3, "concurrency": 4})
    strategy = BufferedStrategy(composition, RoundRules(limits=toy.LIMITS, max_skipped_rounds=1))
    with pytest.raises(StrategyError, match=r"0 of 4 clients gave a good reply.*had not come when the time was over"):
        strategy.start(grid, toy.start_arrays(), num_rounds=3, timeout=0.1)


def train_toy(grid: InlineGrid) -> tuple[ArrayRecord, list[RoundRecord]]:
    records: list[RoundRecord] = []
    composition = registry.build("fedbuff", {"buffer-size": 3, "concurrency": 4})
    strategy = BufferedStrategy(composition, RoundRules(limits=toy.LIMITS), seed=7, observers=[records.append])
    return strategy.start(grid, toy.start_arrays(), num_rounds=6, timeout=30.0).arrays, records[1:]


# What cannot be.


@pytest.mark.parametrize(
    ("options", "rules", "sentence"),
    [
        ({"concurrency": 5}, {}, "'concurrency' is 5, but there are only 4 clients"),
        ({"clients_per_round": 5}, {}, "'clients-per-round' is 5, but there are only 4 clients"),
        ({"buffer_size": 3}, {"min_replies": 4}, "'min-replies' is 4, but the server steps with every 3 updates"),
    ],
)
def test_what_cannot_run_is_refused_at_start(options: dict, rules: dict, sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        train(ScriptedWorld.with_nodes(), fedbuff(**options), 1, **rules)


def test_rounds_cannot_be_configured_and_each_pace_has_its_class() -> None:
    assert strategy_class(fedbuff()) is BufferedStrategy
    assert strategy_class(registry.build("fedavg", {})) is FederatedStrategy
    with pytest.raises(StrategyError, match="'fedbuff' runs at another pace"):
        FederatedStrategy(fedbuff())
    with pytest.raises(StrategyError, match="'fedavg' runs at another pace"):
        BufferedStrategy(registry.build("fedavg", {}))
    with pytest.raises(StrategyError, match="'fedbuff' has no rounds of requests and replies"):
        BufferedStrategy(fedbuff()).configure_train(1, ArrayRecord(), ConfigRecord(), ScriptedWorld.with_nodes())
    assert isinstance(fedbuff().pace, Buffered)


def test_a_second_run_begins_anew() -> None:
    strategy = BufferedStrategy(fedbuff(buffer_size=1, concurrency=2), seed=3)
    start = wire.array_record({"weights": np.zeros(SIZE, np.float32)})
    results = []
    for _ in range(2):
        strategy.census = None
        results.append(strategy.start(two_speeds(), start, 4, 100.0).arrays.to_numpy_ndarrays()[0].tobytes())
    assert results[0] == results[1]
