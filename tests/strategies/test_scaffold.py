"""SCAFFOLD: algorithm 1 in float64 beside ours, the optimum that FedAvg misses, and state that only rounds move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client_state import ClientStates, file_name
from strategies.composition import Composition
from strategies.errors import LayoutError, StrategyError
from strategies.federated import FederatedStrategy
from strategies.fixed_point import FixedPointSum
from strategies.records import RoundRecord
from strategies.scaffold import Scaffold, scaffold_mod
from strategies.terms import RoundRules
from strategies.updates import PartialSum, Update
from tests.strategies import toy_federation as toy
from tests.strategies.quadratics import THREE, Misbehaviour, Quadratic, Vector, app, flat, optimum, start_arrays

RATE = 0.05
FOUR = {**THREE, "d": Quadratic((1.0, 1.0, 1.0), (5.0, -5.0, 0.0), steps=3, examples=1)}
UNIFORM = dict.fromkeys(FOUR, 1.0)


def reference(cohorts: Sequence[Sequence[str]], rate: float = RATE, server: float = 1.0) -> tuple[Vector, Vector]:
    """Algorithm 1 of the paper, option II, line by line; returns x and c."""
    x, c = np.zeros(3), np.zeros(3)
    own = {name: np.zeros(3) for name in FOUR}
    for cohort in cohorts:
        moves, changes = [], []
        for name in cohort:
            y = x.copy()
            for _ in range(FOUR[name].steps):
                y = y - rate * (FOUR[name].gradient(y) - own[name] + c)
            after = own[name] - c + (x - y) / (FOUR[name].steps * rate)
            moves.append(y - x)
            changes.append(after - own[name])
            own[name] = after
        x = x + server * np.mean(moves, axis=0)
        c = c + len(cohort) / len(FOUR) * np.mean(changes, axis=0)
    return x, c


def scaffold(**options: float | str) -> Composition:
    return registry.build("scaffold", {key.replace("_", "-"): value for key, value in options.items()})


class Federation:
    """A server and nodes over one folder. ``restart`` is given the round and may do things to the nodes' files."""

    def __init__(self, folder: Path, composition: Composition | None = None, **rules: object) -> None:
        self.folder = folder
        self.records: list[RoundRecord] = []
        self.rules = RoundRules(**rules)  # type: ignore[arg-type]
        self.composition = composition or scaffold()
        self.strategy = FederatedStrategy(
            self.composition,
            self.rules,
            round_config=lambda number: {"learning-rate": RATE, "run": "a run"},
            observers=[self.records.append],
        )

    def states(self, context: Context, run: str) -> ClientStates:
        return ClientStates(self.folder / file_name(run), durable=False)  # made anew each time, as by a new process

    def train(self, rounds: int, nodes: int = 2, misbehave: Misbehaviour | None = None, wired: bool = False) -> Vector:
        client_app = app(FOUR, scaffold_mod(self.states), misbehave=misbehave)
        configs = InlineGrid.of(client_app, nodes).node_configs
        grid = toy.WireGrid(client_app, configs) if wired else InlineGrid(client_app, configs)
        result = self.strategy.start(grid, wire.array_record(start_arrays()), num_rounds=rounds)
        return flat(result.arrays.to_numpy_ndarrays())

    @property
    def control(self) -> Vector:
        return self.strategy.model.states.objective["control"].astype(np.float64)

    def cohorts(self) -> list[tuple[str, ...]]:
        return [record.accepted for record in self.records[1:] if not record.skipped]

    def kept(self, client: str) -> Vector:
        """What the client itself has of the round that counted last."""
        number = self.strategy.model.committed[client]
        path = self.folder / file_name("a run") / file_name(client) / f"{number}.npz"
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["control"], np.float64)


@pytest.mark.parametrize(("rounds", "per_round"), [(1, 4), (8, 4), (1, 2), (12, 2), (12, 1)])
def test_it_is_the_papers_algorithm(tmp_path: Path, rounds: int, per_round: int) -> None:
    federation = Federation(tmp_path, scaffold(clients_per_round=per_round, server_learning_rate=0.8))
    found = federation.train(rounds)
    x, c = reference(federation.cohorts(), server=0.8)
    assert [len(cohort) for cohort in federation.cohorts()] == [per_round] * rounds
    np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(federation.control, c, atol=1e-5)


def test_the_servers_mean_is_that_of_what_the_clients_keep(tmp_path: Path) -> None:
    federation = Federation(tmp_path, scaffold(clients_per_round=2))
    federation.train(20)
    assert set(federation.strategy.model.committed) == set(FOUR)
    mean = np.mean([federation.kept(client) for client in FOUR], axis=0)
    np.testing.assert_allclose(federation.control, mean, atol=1e-6)


def test_it_finds_the_optimum_that_fedavg_misses(tmp_path: Path) -> None:
    """With different steps and curvatures FedAvg stalls where the clients' drifts cancel; SCAFFOLD takes them out."""
    best = optimum(FOUR, UNIFORM)
    averaged = Federation(tmp_path, registry.build("fedavg", {"weighting": "uniform"})).train(60)
    found = Federation(tmp_path).train(60)
    assert np.abs(averaged - best).max() > 0.2
    np.testing.assert_allclose(found, best, atol=1e-5)


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("wired", [False, True])
def test_nodes_packing_and_wire_do_not_show_in_a_bit(tmp_path: Path, nodes: int, wired: bool) -> None:
    alone = Federation(tmp_path / "alone", scaffold(clients_per_round=3), clients_per_message=1)
    packed = Federation(tmp_path / "packed", scaffold(clients_per_round=3))
    assert packed.train(5, nodes, wired=wired).tobytes() == alone.train(5, nodes=2).tobytes()
    assert packed.control.tobytes() == alone.control.tobytes()


# What counts, and what does not.


def failing(when: Callable[[str, int], bool], how: str) -> Misbehaviour:
    def misbehave(client: str, number: int, answer: RecordDict) -> RecordDict:
        if when(client, number):
            if how == "raises":
                raise OSError("no battery")
            metrics = wire.scalars(wire.metrics_of(answer))
            changes = {"weight": {"num-examples": -1}, "steps": {"steps": 0.5}, "no steps": {"steps": math.nan}}
            answer[wire.METRICS] = MetricRecord({**metrics, **changes[how]})
        return answer

    return misbehave


@pytest.mark.parametrize(
    ("how", "reason"), [("raises", "error"), ("weight", "weight"), ("steps", "malformed"), ("no steps", "malformed")]
)
def test_a_rejected_update_leaves_no_trace_anywhere(tmp_path: Path, how: str, reason: str) -> None:
    federation = Federation(tmp_path)
    found = federation.train(6, misbehave=failing(lambda client, number: client == "b" and number in (2, 3, 5), how))
    assert [record.rejected for record in federation.records[1:]] == [
        {reason: 1} if number in (2, 3, 5) else {} for number in range(1, 7)
    ]
    x, c = reference(federation.cohorts())
    np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(federation.control, c, atol=1e-5)


def test_a_skipped_round_leaves_no_trace_anywhere(tmp_path: Path) -> None:
    """Three updates are good and their clients have written their states, but four are needed."""
    federation = Federation(tmp_path, min_replies=4)
    found = federation.train(6, misbehave=failing(lambda client, number: client == "b" and number in (2, 4), "raises"))
    assert [record.skipped for record in federation.records[1:]] == [False, True, False, True, False, False]
    x, c = reference([tuple(FOUR)] * 4)
    np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(federation.control, c, atol=1e-5)


def test_a_lost_reply_leaves_no_trace_anywhere(tmp_path: Path) -> None:
    """The client did all its work, but nobody heard of it."""
    federation = Federation(tmp_path)
    client_app = app(FOUR, scaffold_mod(federation.states))
    lost: list[str] = []

    def lose(reply: Message, clients: list[str]) -> list[Message]:
        if "c" in clients and int(reply.metadata.group_id) in (2, 3):
            lost.extend(clients)
            return []
        return [reply]

    grid = toy.WireGrid(client_app, InlineGrid.of(client_app, 2).node_configs, tamper=lose)
    result = federation.strategy.start(grid, wire.array_record(start_arrays()), num_rounds=5, timeout=0.2)
    assert lost and {"late": len(lost) // 2} == federation.records[2].rejected
    x, c = reference(federation.cohorts())
    np.testing.assert_allclose(flat(result.arrays.to_numpy_ndarrays()), x, atol=1e-5)
    np.testing.assert_allclose(federation.control, c, atol=1e-5)


def test_a_client_that_is_run_twice_in_a_round_counts_once(tmp_path: Path) -> None:
    """As where a worker dies after it has written: the message is given to another one."""

    class Twice(InlineGrid):
        def _execute(self, message: Message) -> Message:
            content = message.content.copy()
            super()._execute(message)
            message.content = content
            return super()._execute(message)

    federation = Federation(tmp_path)
    client_app = app(FOUR, scaffold_mod(federation.states))
    grid = Twice(client_app, InlineGrid.of(client_app, 2).node_configs)
    result = federation.strategy.start(grid, wire.array_record(start_arrays()), num_rounds=4)
    once = Federation(tmp_path / "once")
    assert flat(result.arrays.to_numpy_ndarrays()).tobytes() == once.train(4).tobytes()
    assert federation.control.tobytes() == once.control.tobytes()


def test_a_server_that_goes_on_from_the_round_before_does_it_again_to_the_bit(tmp_path: Path) -> None:
    """Killed after round 4 and before its checkpoint: the clients have committed what the server has forgotten."""
    straight = Federation(tmp_path / "straight")
    straight.train(5)
    federation = Federation(tmp_path)
    federation.train(3)
    states, committed = federation.strategy.model.states, dict(federation.strategy.model.committed)
    again = [Federation(tmp_path), Federation(tmp_path)]
    for one in again:  # the first lives for one round only
        model, arrays = one.strategy.model, federation.strategy.arrays
        assert arrays is not None
        model.weights_of(arrays)
        model.states, model.committed = states, dict(committed)
        client_app = app(FOUR, scaffold_mod(one.states))
        grid = InlineGrid.of(client_app, 2)
        for number in (4,) if one is again[0] else (4, 5):
            messages = list(one.strategy.configure_train(number, arrays, _nothing(), grid))
            replies = list(grid.pull_messages(grid.push_messages(messages)))
            moved, _ = one.strategy.aggregate_train(number, replies)
            assert moved is not None
            arrays = moved
    assert again[1].control.tobytes() == straight.control.tobytes()
    assert flat(arrays.to_numpy_ndarrays()).tobytes() == _end_of(straight).tobytes()


def test_a_client_that_lost_its_state_goes_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    federation = Federation(tmp_path)

    def lose(client: str, number: int, answer: RecordDict) -> RecordDict:
        if (client, number) == ("a", 3):
            for path in (tmp_path / file_name("a run") / file_name("b")).glob("*.npz"):
                path.write_bytes(b"")
        return answer

    federation.train(5, nodes=1, misbehave=lose)
    assert "Client b starts anew, as its state of round 3 cannot be used" in caplog.text
    assert all(record.accepted == tuple(FOUR) for record in federation.records[1:])


# Who may be believed how much.


def observation(control: Sequence[float] = (0, 0, 0), **settings: float) -> object:
    state = {"control": np.array(control, np.float32), "population": np.array([0])}
    return Scaffold().start(state, {"learning-rate": 0.5, **settings})


def update(delta: Sequence[float], steps: float) -> Update:
    return Update("a", np.array(delta, np.float32), 1.0, {"steps": steps})


@pytest.mark.parametrize("steps", [0, -1, 2.5, math.nan, math.inf])
def test_absurd_steps_are_malformed(steps: float) -> None:
    with pytest.raises(LayoutError, match="'steps' must be a whole number") as caught:
        observation().check(update([1, 1, 1], steps))  # type: ignore[attr-defined]
    assert caught.value.reason == "malformed"


def test_so_many_steps_that_nothing_would_be_left_are_malformed() -> None:
    with pytest.raises(LayoutError, match="which is absurd"):
        observation().check(update([1, 1, 1], 2.0**40))  # type: ignore[attr-defined]


def test_steps_so_short_that_the_sum_could_not_hold_the_gradient_are_refused_before_anything_is_added() -> None:
    """What a check lets through, the sum takes: else the mean would hold an update that does not count."""
    for rate in (1e-15, 1e-16, 1e-30):
        seen = observation(**{"learning-rate": rate})
        one = update([1e-30, 0, 0], 1)
        try:
            seen.check(one)  # type: ignore[attr-defined]
        except LayoutError as error:
            assert (error.reason, rate < 2.0**-53) == ("malformed", True)
        else:
            seen.add(one)  # type: ignore[attr-defined]


def test_no_client_can_use_up_the_range_of_the_sum() -> None:
    """What one may add is bounded as its update is: by its share of the range in a cohort of that size."""
    bounded = observation(**{"limit-max_contribution": 100.0})
    bounded.check(update([49, 0, 0], 1))  # type: ignore[attr-defined]
    with pytest.raises(OverflowError, match="mean gradient reaches 102"):
        bounded.check(update([51, 0, 0], 1))  # type: ignore[attr-defined]
    bounded.check(update([51, 0, 0], 2))  # type: ignore[attr-defined]


def test_the_sum_by_hand() -> None:
    """c = 1; gradients -2/(2 * .5) and 4/(4 * .5) of 2 among 8 clients: c+ = 1 - 2/8 - (2 - 2)/8 and so on."""
    seen = observation([1, 1, 1])
    for one in (update([2, 0, 1], 2), update([-4, 0, 3], 4)):
        seen.check(one)  # type: ignore[attr-defined]
        seen.add(one)  # type: ignore[attr-defined]
    assert seen.state(8)["control"].tolist() == [0.75, 0.75, 0.75 - (1 + 1.5) / 8]  # type: ignore[attr-defined]


def test_nodes_that_come_and_go_leave_the_servers_mean_a_mean() -> None:
    """Of all c_i, by the clients that there are: each round's are (who trains, how many clients there are)."""
    rule, chance = Scaffold(), np.random.default_rng(0)
    state, own = rule.init(3), {name: np.zeros(3) for name in "abcdef"}
    for cohort, population in (("ab", 2), ("ac", 4), ("def", 6), ("b", 3), ("abcdef", 6)):
        control = state["control"].astype(np.float64)
        seen = rule.start(state, {"learning-rate": 0.5})
        for name in cohort:
            delta = chance.standard_normal(3).astype(np.float32)
            seen.add(update(delta.tolist(), 2))
            own[name] = own[name] - control - delta / (2 * 0.5)
        state = seen.state(population)
        np.testing.assert_allclose(state["control"] * population, sum(own.values()), atol=1e-5)


def test_partial_sums_are_refused() -> None:
    total = FixedPointSum(3)
    total.add(np.ones(3, np.float32), 1.0)
    with pytest.raises(StrategyError, match="each client's own update"):
        observation().merge(PartialSum(total, {"a": 1.0}, {}))  # type: ignore[attr-defined]


def test_a_round_without_a_learning_rate_is_refused() -> None:
    for settings in ({}, {"learning-rate": 0.0}, {"learning-rate": "fast"}):
        with pytest.raises(StrategyError, match="the setting 'learning-rate', above 0"):
            Scaffold().start(Scaffold().init(3), settings)


# The composition.


def test_every_client_counts_the_same_unless_asked_otherwise_which_is_refused() -> None:
    assert registry.build("scaffold", {"weighting": "auto"}).aggregator.weight_of(update([1, 1, 1], 1)) == 1.0
    with pytest.raises(StrategyError, match=r"Scaffold needs every client to count the same.*set the key 'weighting'"):
        registry.build("scaffold", {"weighting": "examples"})


def test_only_plain_sgd_will_do() -> None:
    for options in ({"client-optimizer": "adam"}, {"client-optimizer-args": "momentum=0.9"}):
        with pytest.raises(StrategyError, match="'client-optimizer"):
            registry.build("scaffold", options)


def test_a_buffer_has_no_rounds_that_could_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.STRATEGIES, "both", {**registry.STRATEGIES["scaffold"], "pace": "buffered"})
    with pytest.raises(StrategyError, match="Scaffold needs rounds that end for all at once"):
        registry.build("both", {})


def test_a_request_without_control_passes_through(tmp_path: Path) -> None:
    """As of FedAvg, to a client whose app could do SCAFFOLD too."""
    federation = Federation(tmp_path, registry.build("fedavg", {}))
    federation.train(2)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_nothing_of_the_run_is_told_so(tmp_path: Path) -> None:
    federation = Federation(tmp_path, max_skipped_rounds=1)
    federation.strategy.round_config = lambda number: {"learning-rate": RATE}
    with pytest.raises(StrategyError, match="The key 'run' of a message must hold a string"):
        federation.train(1)


def _nothing() -> object:
    from flwr.app import ConfigRecord

    return ConfigRecord()


def _end_of(federation: Federation) -> Vector:
    assert federation.strategy.arrays is not None
    return flat(federation.strategy.arrays.to_numpy_ndarrays())
