"""Rounds in a simulated world: closed forms, the model of those who count, and independence of engine and packing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from app.config import RunConfig
from app.errors import UserError
from app.world_keys import device_classes, regions
from simulation.availability import SLOT_SECONDS, ByChance
from simulation.devices import Devices
from simulation.draws import Draws
from simulation.inline import InlineGrid
from simulation.trace import Trace
from simulation.world import WorldGrid, world_grid
from strategies import wire
from strategies.census import Census
from strategies.clock import World
from strategies.compression.header import LENGTH
from strategies.errors import StrategyError
from strategies.exchange import ArrivalGrid
from tasks.local_training import LocalTraining
from tests.simulation.worlds import A_SECOND_FOR_TEN, BackwardsGrid, conditions, run, told, world
from tests.strategies import toy_federation as toy

ALMOST_IMPOSSIBLE = 1e-6


def test_a_world_is_what_the_strategies_take_for_one() -> None:
    grid = world(conditions())
    assert isinstance(grid, World) and isinstance(grid, ArrivalGrid)
    with pytest.raises(TypeError, match="needs a grid with next_arrivals"):
        WorldGrid(object(), conditions())  # type: ignore[arg-type]


@pytest.mark.parametrize("clients_per_message", [0, 1, 4])
def test_in_a_perfect_world_the_model_is_that_of_a_plain_run(clients_per_message: int) -> None:
    plain, _ = toy.run(toy.app())
    arrays, records = run(world(conditions()), clients_per_message=clients_per_message)
    assert toy.same(arrays, plain)
    assert [record.simulated_seconds for record in records] == [0.0, 0.0]


def test_a_round_lasts_as_long_as_its_slowest_client_and_evaluations_take_no_time() -> None:
    plain, _ = toy.run(toy.app())
    arrays, records = run(world(conditions(devices=A_SECOND_FOR_TEN)), federated_evaluate_every=1)
    assert toy.same(arrays, plain)
    assert [record.simulated_seconds for record in records] == [pytest.approx(6), pytest.approx(12)]
    assert all(record.federated is not None for record in records)


def test_network_time_is_that_of_the_model_down_and_up() -> None:
    megabits = 2 * toy.SIZE * 4 * 8 / 1e6  # five float32, both ways
    _, (record,) = run(world(conditions(devices=Devices(network_mbps=megabits / 3))), rounds=1)
    assert record.simulated_seconds == pytest.approx(3)


def test_network_time_is_that_of_what_compression_leaves() -> None:
    """As float16 both ways: payloads of a known length, whose headers weigh more than five values."""
    sent, seconds = 2 * (LENGTH + 2 * toy.SIZE), 3
    network = Devices(network_mbps=sent * 8 / 1e6 / seconds)
    options: dict[str, object] = {"codec": "float16", "downlink": "float16"}
    _, (record,) = run(world(conditions(devices=network)), rounds=1, options=options)
    assert record.accepted == toy.IDS
    assert record.simulated_seconds == pytest.approx(seconds)


def test_more_work_takes_longer() -> None:
    _, (record,) = run(
        world(conditions(devices=A_SECOND_FOR_TEN, training=LocalTraining(batch_size=10, epochs=5))), rounds=1
    )
    assert record.simulated_seconds == pytest.approx(30)


def test_who_misses_the_deadline_is_late_is_not_run_and_does_not_count() -> None:
    seen: dict[tuple[int, str], int] = {}
    grid = world(conditions(devices=A_SECOND_FOR_TEN), toy.app(seen=seen))
    arrays, records = run(grid, round_deadline=4.5)
    assert toy.same(arrays, toy.without("4", "5"))
    assert [record.rejected for record in records] == [{"late": 2}, {"late": 2}]
    assert [record.simulated_seconds for record in records] == [4.5, 9.0]
    assert {client for _, client in seen} == {"0", "1", "2", "3"}


def test_with_over_selection_the_first_to_finish_count_and_end_the_round() -> None:
    seen: dict[tuple[int, str], int] = {}
    grid = world(conditions(devices=A_SECOND_FOR_TEN), toy.app(seen=seen))
    arrays, records = run(grid, options={"clients-per-round": 3, "over-selection": 2.0})
    assert toy.same(arrays, toy.without("3", "4", "5"))
    assert [(record.accepted, record.rejected) for record in records] == [(("0", "1", "2"), {"surplus": 3})] * 2
    assert [record.simulated_seconds for record in records] == [pytest.approx(3), pytest.approx(6)]
    assert {client for _, client in seen} == {"0", "1", "2"}


def test_who_needs_longer_than_anybody_waits_is_late_in_any_packing() -> None:
    for clients_per_message in (0, 1):
        grid = world(conditions(devices=A_SECOND_FOR_TEN, patience=5.5))
        arrays, records = run(grid, clients_per_message=clients_per_message)
        assert toy.same(arrays, toy.without("5"))
        assert [record.simulated_seconds for record in records] == [5.5, 11.0]


def test_a_round_in_which_nobody_is_in_time_is_skipped_and_the_others_go_on() -> None:
    grid = world(conditions(devices=A_SECOND_FOR_TEN))
    with pytest.raises(StrategyError, match=r"0 of 6 clients .* its work takes \d simulated seconds, but it has 0\.5"):
        run(grid, rounds=5, round_deadline=0.5)
    assert grid.now() == 1.5


def recording_app(shares: dict[str, object]) -> ClientApp:
    """The toy app, which also takes down the share of its work that each client is to do."""
    inner, outer = toy.app(), ClientApp()

    def handler(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        for place, client in enumerate(wire.text_list(config, wire.CLIENTS)):
            listed = config.get(wire.SHARES, [])
            shares[client] = listed[place] if listed else None  # type: ignore[index]
        return inner(message, context)

    outer.train()(handler)
    outer.query("describe")(lambda message, context: inner(message, context))
    return outer


@pytest.mark.parametrize("clients_per_message", [0, 1, 3])
def test_stragglers_may_send_partial_work(clients_per_message: int) -> None:
    shares: dict[str, object] = {}
    given_conditions = conditions(devices=A_SECOND_FOR_TEN, partial=True)
    _, records = run(
        world(given_conditions, recording_app(shares), nodes=1, grid=InlineGrid),
        rounds=1,
        round_deadline=3.0,
        clients_per_message=clients_per_message,
    )
    assert (records[0].rejected, records[0].simulated_seconds) == ({}, 3.0)
    expected = {"0": 1, "1": 1, "2": 1, "3": 3 / 4, "4": 3 / 5, "5": 3 / 6}
    for client, share in expected.items():
        assert (shares[client] or 1.0) == pytest.approx(share)


def test_dropouts_are_as_frequent_as_their_probability_and_differ_from_round_to_round() -> None:
    rounds, rate = 300, 0.2
    arrays, records = run(world(conditions(dropout=rate)), rounds=rounds, max_skipped_rounds=rounds)
    lost = [record.rejected.get("dropout", 0) for record in records]
    assert stats.binomtest(sum(lost), 6 * rounds, rate).pvalue > ALMOST_IMPOSSIBLE
    expected = rounds * stats.binom(6, rate).pmf(np.arange(4))
    counts = np.bincount(lost, minlength=7)[:4]
    both = (np.append(counts, rounds - counts.sum()), np.append(expected, rounds - expected.sum()))
    assert stats.chisquare(*both).pvalue > ALMOST_IMPOSSIBLE
    assert all(np.isfinite(array).all() for array in arrays)


def test_who_drops_out_does_so_at_any_moment_of_its_work() -> None:
    """Alone, with one second of work: the round is over when it is noticed, at a time uniform from 0 to 1."""
    grid = world(conditions(devices=A_SECOND_FOR_TEN, dropout=0.9), toy.app(["0"]))
    _, records = run(grid, rounds=300, max_skipped_rounds=301)
    times = np.diff([0.0, *(record.simulated_seconds or 0.0 for record in records)])
    lost = [time for time, record in zip(times, records, strict=True) if not record.accepted]
    assert stats.kstest(lost, "uniform").pvalue > ALMOST_IMPOSSIBLE


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dropout=st.sampled_from([0.0, 0.3]),
    deadline=st.sampled_from([0.0, 3.0]),
    goal=st.sampled_from([0, 2, 3]),
    partial=st.booleans(),
    availability=st.sampled_from([1.0, 0.6]),
)
def test_any_world_is_the_same_on_any_engine_and_in_any_packing(
    seed: int, dropout: float, deadline: float, goal: int, partial: bool, availability: float
) -> None:
    devices = Devices(device_classes("slow:0.5:3"), example_seconds=0.1, compute_spread=0.5)
    chance = ByChance(availability, 0.0, devices)
    given_conditions = conditions(seed, devices=devices, availability=chance, dropout=dropout, partial=partial)
    options: dict[str, object] = {"clients-per-round": goal, "over-selection": 2.0 if goal else 1.0}
    rules = {"round_deadline": deadline, "max_skipped_rounds": 9, "rounds": 3, "seed": seed, "options": options}
    arrays, records = run(world(given_conditions), **rules)  # type: ignore[arg-type]
    for nodes, clients_per_message, grid in ((1, 0, InlineGrid), (3, 1, BackwardsGrid), (2, 2, BackwardsGrid)):
        other = world(given_conditions, nodes=nodes, grid=grid)
        same_arrays, same_records = run(other, clients_per_message=clients_per_message, **rules)  # type: ignore[arg-type]
        assert toy.same(same_arrays, arrays)
        assert told(same_records) == told(records)


def test_when_a_message_fails_those_who_were_not_run_keep_their_reason() -> None:
    def failing(message: Message, context: Context) -> Message:
        raise OSError("no disk")

    app, inner = ClientApp(), toy.app()
    app.train()(failing)
    app.query("describe")(lambda message, context: inner(message, context))
    with pytest.raises(StrategyError) as caught:
        run(world(conditions(devices=A_SECOND_FOR_TEN), app, nodes=1, grid=InlineGrid), round_deadline=4.5, rounds=9)
    assert "0 of 6 clients" in str(caught.value)
    grid = world(conditions(devices=A_SECOND_FOR_TEN), app, nodes=1, grid=InlineGrid)
    _, records = run(grid, round_deadline=4.5, rounds=2)
    assert [record.rejected for record in records] == [{"error": 4, "late": 2}] * 2


# Who is online.


def test_only_clients_that_are_online_are_asked_and_the_clock_waits_for_them() -> None:
    trace = Trace.of([("0", 100.0, 200.0), ("3", 100.0, 102.0), ("1", 150.0, 160.0)], Draws(7))
    _, records = run(world(conditions(devices=A_SECOND_FOR_TEN, availability=trace)), rounds=1)
    (record,) = records
    assert record.selected == ("0", "3")
    assert (record.accepted, record.rejected) == (("0",), {"dropout": 1})  # 3 needs four seconds and has two
    assert record.simulated_seconds == 102.0


def test_online_keeps_the_order_and_does_not_depend_on_who_else_is_asked() -> None:
    grid = world(conditions(availability=ByChance(0.5)))
    ids = [str(number) for number in range(1000)]
    online = grid.online(ids)
    assert 400 < len(online) < 600
    assert grid.online(ids[::-1]) == online[::-1]
    assert [client for client in ids[:50] if grid.online([client])] == [c for c in online if int(c) < 50]
    assert grid.online(ids) == online and grid.online([]) == []


def test_a_trace_of_other_clients_is_a_mistake_of_the_user() -> None:
    trace = Trace.of([("client-0", 0.0, 200.0)], Draws(7))
    with pytest.raises(UserError, match="names none of the run's clients, which are called '0', '1', '2'"):
        run(world(conditions(devices=A_SECOND_FOR_TEN, availability=trace)))


def test_when_nobody_will_ever_be_online_again_the_run_ends_with_a_sentence() -> None:
    trace = Trace.of([("0", 0.0, 1.5)], Draws(7))
    grid = world(conditions(devices=A_SECOND_FOR_TEN, availability=trace))
    with pytest.raises(StrategyError, match="skipped rounds in a row"):
        run(grid, rounds=9)
    assert not grid.wait_for_clients()


def test_waiting_goes_to_the_next_slot_in_which_somebody_is_online() -> None:
    grid = world(conditions(availability=ByChance(0.02)))
    census = Census(grid, 5.0)
    census.start(1, 5.0)
    ids = [client.id for client in census.population().clients]
    assert grid.wait_for_clients() and (present := grid.online(ids))
    assert grid.now() % SLOT_SECONDS == 0
    assert grid.wait_for_clients(present) and set(grid.online(ids)) - set(present)
    assert not grid.wait_for_clients(ids)


# What is told of devices.


def test_the_population_shows_device_classes_and_regions() -> None:
    devices = Devices(device_classes("fast:0.3:0.5,slow:0.4:4"), regions("europe:0.5:1,asia:0.5:8"))
    given_conditions = conditions(devices=devices)
    census = Census(world(given_conditions), 5.0)
    census.start(1, 5.0)
    crowd = given_conditions.draws.crowd(toy.IDS)
    clients = census.population().clients
    assert [client.device_class for client in clients] == [kind.name for kind in devices.classes_of(crowd)]
    assert [client.region for client in clients] == [place.name for place in devices.regions_of(crowd)]
    assert [client.num_examples for client in clients] == [10, 20, 30, 40, 50, 60]


# The grid itself.


def pushed(grid: WorldGrid, *clients: str, **settings: object) -> dict[str, str]:
    """Describe the nodes, then ask each client in a message of its own; return the clients by message id."""
    Census(grid, 5.0).start(1, 5.0)
    requests = [
        Message(
            RecordDict(
                {
                    wire.ARRAYS: toy.start_arrays(),
                    wire.CONFIG: wire.ConfigRecord({"clients": [client], "seeds": [3], "round": 1, **settings}),  # type: ignore[dict-item]
                }
            ),
            1,
            "train",
        )
        for client in clients
    ]
    return dict(zip(grid.push_messages(requests), clients, strict=True))


def arrivals(grid: WorldGrid, asked: dict[str, str], timeout: float = 100.0) -> list[str]:
    replies = grid.next_arrivals(set(asked), timeout)
    return [asked.pop(reply.metadata.reply_to_message_id) for reply in replies]


def test_replies_come_at_their_simulated_times_and_those_of_one_instant_together() -> None:
    constant = Devices(example_seconds=0.1)
    grid = world(conditions(devices=constant, training=LocalTraining(batch_size=100, steps=1)), grid=BackwardsGrid)
    asked = pushed(grid, "3", "0", "1")
    assert [(arrivals(grid, asked), grid.now()) for _ in range(3)] == [
        (["0"], pytest.approx(1)),
        (["1"], pytest.approx(2)),
        (["3"], pytest.approx(4)),
    ]
    assert arrivals(grid, asked) == []
    still = world(conditions(), grid=BackwardsGrid)
    assert arrivals(still, pushed(still, "3", "0", "1")) == ["3", "0", "1"]


def test_clients_that_begin_later_finish_later() -> None:
    grid = world(conditions(devices=A_SECOND_FOR_TEN))
    asked = pushed(grid, "2", "0")
    assert (arrivals(grid, asked), grid.now()) == (["0"], pytest.approx(1))
    asked |= pushed(grid, "0", "1")
    order = [(arrivals(grid, asked), grid.now()) for _ in range(2)]
    assert order == [(["0"], 2.0), (["2", "1"], 3.0)]


def test_a_reply_that_does_not_come_in_time_can_still_be_waited_for() -> None:
    grid = world(conditions(devices=A_SECOND_FOR_TEN))
    asked = pushed(grid, "2")
    assert (arrivals(grid, asked, timeout=1.25), grid.now()) == ([], 1.25)
    assert (arrivals(grid, asked, timeout=1.75), grid.now()) == (["2"], pytest.approx(3))


def test_flowers_own_ways_of_asking_see_the_same_world() -> None:
    grid = world(conditions(devices=A_SECOND_FOR_TEN))
    asked = pushed(grid, "2", "0", deadline=2.0)
    replies = list(grid.pull_messages([*asked, "unknown"]))
    assert [asked[reply.metadata.reply_to_message_id] for reply in replies] == ["0", "2"]
    assert [reply.content["pack"]["reasons"] for reply in replies] == [[""], ["late"]]  # type: ignore[index]
    assert grid.now() == 2.0
    assert list(grid.get_node_ids()) == [1, 2] and grid.run is not None
    query = grid.create_message(RecordDict(), "query.describe", 1, "0")
    (described,) = grid.send_and_receive([query])
    assert described.has_content() and grid.now() == 2.0


def test_a_grid_that_packs_does_so_in_a_world_too() -> None:
    class Packing(InlineGrid):
        def packs(self, cohort: object) -> list[tuple[int, list[str]]]:
            return [(1, ["all"])]

    app = toy.app()
    assert WorldGrid(Packing(app, InlineGrid.of(app, 1).node_configs), conditions()).packs([]) == [(1, ["all"])]
    assert not hasattr(world(conditions()), "packs")


# From a run config.


def config(**values: object) -> RunConfig:
    return RunConfig.from_run_config({key.replace("_", "-"): value for key, value in values.items()})


def test_without_its_keys_there_is_no_world() -> None:
    grid = InlineGrid.of(toy.app(), 1)
    assert world_grid(grid, config()) is grid
    assert isinstance(world_grid(grid, config(dropout=0.1)), WorldGrid)
    assert isinstance(world_grid(grid, config(over_selection=2.0)), WorldGrid)  # the order of replies counts
    assert isinstance(world_grid(grid, config(strategy="fedbuff")), WorldGrid)


def test_every_key_of_the_world_reaches_it(tmp_path: Path) -> None:
    values = {
        "device_classes": "slow:0.5:2",
        "regions": "here:1:2",
        "example_seconds": 0.5,
        "compute_spread": 0.3,
        "network_mbps": 4.0,
        "network_spread": 0.2,
        "availability": 0.7,
        "day_night": 0.4,
        "dropout": 0.1,
        "round_deadline": 60.0,
        "stragglers": "partial",
    }
    wrapped = world_grid(
        InlineGrid.of(toy.app(), 1),
        config(**values, seed=5, local_epochs=3, batch_size=7, full_training_examples=9, round_timeout=99.0),
    )
    assert isinstance(wrapped, WorldGrid)
    made = wrapped.conditions
    devices = Devices(device_classes("slow:0.5:2"), regions("here:1:2"), 0.5, 0.3, 4.0, 0.2)
    assert (made.draws, made.devices, made.availability) == (Draws(5), devices, ByChance(0.7, 0.4, devices))
    assert (made.dropout, made.patience, made.partial) == (0.1, 99.0, True)
    assert made.training == LocalTraining(7, 3, 0, full_training_examples=9)
    file = tmp_path / "trace.csv"
    file.write_text("0,1,2\n")
    traced = world_grid(InlineGrid.of(toy.app(), 1), config(availability_trace=str(file), example_seconds=1.0))
    assert isinstance(traced, WorldGrid) and isinstance(traced.conditions.availability, Trace)
    with pytest.raises(UserError, match=r"'availability-trace' is 'none\.csv', which cannot be read"):
        world_grid(InlineGrid.of(toy.app(), 1), config(availability_trace="none.csv", example_seconds=1.0))
