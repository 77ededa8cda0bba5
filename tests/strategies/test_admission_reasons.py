"""Every reason to reject an update, brought about in a whole federation: named, counted, and harmless."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from simulation.devices import Devices
from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.admission import Reason
from strategies.fedbuff import strategy_class
from strategies.records import RoundRecord
from strategies.replies import SENTENCES
from strategies.terms import RoundRules
from tests.simulation.worlds import conditions, world
from tests.strategies import toy_federation as toy
from tests.strategies.scripted_world import ScriptedWorld
from tests.strategies.toy_federation import BAD, WireGrid

Arrays = list[np.ndarray]
Outcome = tuple[Arrays, RoundRecord]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only sleeping moves, so that nobody is late but those who never answer."""
    now = [1000.0]
    monkeypatch.setattr("strategies.exchange.time.monotonic", lambda: now[0])
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: now.append(now.pop() + seconds))


def one_round(grid: InlineGrid, options: dict[str, object] | None = None) -> Outcome:
    """Train all six clients for one round, each in a message of its own."""
    records: list[RoundRecord] = []
    composition = registry.build("fedavg", options or {})  # type: ignore[arg-type]
    rules = RoundRules(limits=toy.LIMITS, clients_per_message=1)
    strategy = strategy_class(composition)(composition, rules, seed=7, observers=[records.append])
    result = strategy.start(grid, toy.start_arrays(), num_rounds=1, timeout=100.0)
    return result.arrays.to_numpy_ndarrays(), records[1]


def answering(change: Callable[[dict[str, np.ndarray], dict[str, float]], object], **options: object) -> Outcome:
    """A round in which client 3 changes its arrays and metrics before it answers."""

    def misbehave(content: RecordDict) -> RecordDict:
        arrays = {name: np.array(array.numpy()) for name, array in content["arrays"].items()}
        metrics = dict(content["metrics"])
        change(arrays, metrics)
        return RecordDict({"arrays": wire.array_record(arrays), "metrics": MetricRecord(metrics)})

    app = toy.app(bad={BAD: misbehave})
    return one_round(WireGrid(app, InlineGrid.of(app, 2).node_configs), options)


def fail(arrays: dict[str, np.ndarray], metrics: dict[str, float]) -> None:
    raise ValueError("no disk")


def losing(tamper: Callable[[Message, list[str]], Iterable[Message]]) -> Outcome:
    return one_round(WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, tamper=tamper))


def swollen(reply: Message, clients: list[str]) -> Iterable[Message]:
    if BAD in clients:
        reply.content["update"] = wire.array_record({"0/delta": np.zeros(10**6, np.float32)})
    return [reply]


class LossyGrid(WireGrid):
    """A grid that does not take the messages to client 3."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        given = list(messages)
        ids = super().push_messages(given)
        settings = [wire.config_of(message) for message in given]
        return [one for one, config in zip(ids, settings, strict=True) if config.get("clients") != [BAD]]


def dropping_out() -> Outcome:
    """A world in which each client leaves with a probability of a half."""
    return one_round(world(conditions(devices=Devices(example_seconds=0.1), dropout=0.5)))  # type: ignore[arg-type]


REJECTED: dict[Reason, Callable[[], Outcome]] = {
    Reason.ERROR: lambda: answering(fail),
    Reason.LATE: lambda: losing(lambda reply, clients: [] if BAD in clients else [reply]),
    Reason.NOT_SENT: lambda: one_round(LossyGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs)),
    Reason.MALFORMED: lambda: answering(lambda arrays, metrics: arrays.pop("bias")),
    Reason.TOO_LARGE: lambda: losing(swollen),
    Reason.SHAPE: lambda: answering(lambda arrays, metrics: arrays.update(bias=np.zeros(2, np.float32))),
    Reason.DTYPE: lambda: answering(lambda arrays, metrics: arrays.update(bias=np.zeros(1, np.int8))),
    Reason.NOT_FINITE: lambda: answering(lambda arrays, metrics: arrays["kernel"].fill(np.nan)),
    Reason.WEIGHT: lambda: answering(lambda arrays, metrics: metrics.update({"num-examples": -5})),
    Reason.NORM: lambda: answering(lambda arrays, metrics: arrays["kernel"].fill(1e6)),
    Reason.DROPOUT: dropping_out,
    Reason.SURPLUS: lambda: one_round(InlineGrid.of(toy.app(), 2), {"clients-per-round": 3, "over-selection": 2.0}),
    Reason.ZEROED: lambda: answering(lambda arrays, metrics: arrays["bias"].fill(30.0), zeroing=True),
}
ELSEWHERE = {
    Reason.STALE,  # which only updates of strategies without rounds can be: below
    Reason.NOISE,  # which only local privacy asks for: tests.strategies.privacy.test_local_dp
    Reason.NO_REFERENCE,  # which only who is sent differences has lost: tests.strategies.compression.test_differences
}


def test_every_reason_is_brought_about_here_and_has_a_sentence() -> None:
    assert set(REJECTED) | ELSEWHERE == set(Reason) == set(SENTENCES)


@pytest.mark.parametrize("reason", list(REJECTED))
def test_who_is_rejected_is_counted_under_its_reason_and_as_if_it_did_not_exist(reason: Reason) -> None:
    arrays, record = REJECTED[reason]()
    rejected = sorted(set(record.selected) - set(record.accepted))
    assert record.rejected == {reason.value: len(rejected)}
    assert rejected == [BAD] if reason not in {Reason.DROPOUT, Reason.SURPLUS} else 0 < len(rejected) < 6
    assert record.to_json()["rejected"] == {reason.value: len(rejected)}
    assert toy.same(arrays, toy.without(*rejected, rounds=1))


@pytest.mark.parametrize("times", [2, 3])
def test_a_reply_that_comes_again_is_counted_as_such_and_added_once(times: int) -> None:
    arrays, record = losing(lambda reply, clients: [reply] * (times if BAD in clients else 1))
    assert record.accepted == toy.IDS and record.participation() == 1
    line = record.to_json()
    assert (line["rejected"], line["repeated"]) == ({}, times - 1)
    assert toy.same(arrays, toy.without(rounds=1))


def test_replies_that_come_again_and_again_make_no_step_of_fedbuff_hopeless() -> None:
    """One client trains at a time; two good updates make a step, and twenty bad ones would end it."""
    records: list[RoundRecord] = []
    composition = registry.build("fedbuff", {"buffer-size": 2, "concurrency": 1})
    grid = WireGrid(toy.app(), InlineGrid.of(toy.app(), 2).node_configs, tamper=lambda reply, clients: [reply] * 30)
    strategy = strategy_class(composition)(composition, seed=7, observers=[records.append])
    strategy.start(grid, toy.start_arrays(), num_rounds=1, timeout=5.0)
    assert (len(records[1].accepted), dict(records[1].rejected), records[1].skipped) == (2, {}, False)
    assert records[1].repeated >= 29


def test_a_stale_update_is_counted_as_such_and_does_not_move_the_model() -> None:
    """The others move the model by 1 in every step, and are back after a second; client 3 takes six, for 1000."""
    records: list[RoundRecord] = []
    options = {"buffer-size": 3, "staleness-exponent": 0.0, "max-staleness": 2}
    composition = registry.build("fedbuff", options)  # type: ignore[arg-type]
    grid = ScriptedWorld.with_nodes(
        duration=lambda start: 6.0 if start[0] == BAD else 1.0,
        delta=lambda start, weights: np.full(3, 1000 if start[0] == BAD else 1, np.float32),
    )
    strategy = strategy_class(composition)(composition, seed=7, observers=[records.append])
    result = strategy.start(grid, ArrayRecord([np.zeros(3, np.float32)]), num_rounds=8)
    assert [record.rejected for record in records if record.rejected] == [{Reason.STALE.value: 1}]
    assert result.arrays.to_numpy_ndarrays()[0].tolist() == [8.0] * 3
