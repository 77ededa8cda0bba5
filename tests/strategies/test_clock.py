"""Clocks and worlds: who is asked, when a run waits, and what a grid without a clock is taken for."""

import time

from simulation.inline import InlineGrid
from strategies.clock import World, await_online, clock_of, online, online_among, simulated_seconds
from strategies.population import ClientInfo, Population
from tests.strategies.scripted_world import ScriptedWorld
from tests.strategies.toy_federation import app

PEOPLE = Population([ClientInfo(str(number)) for number in range(4)], [1, 2])


def ids(clients: object) -> list[str]:
    return [client.id for client in clients]  # type: ignore[attr-defined]


def test_without_a_world_time_is_real_and_everybody_there() -> None:
    grid = InlineGrid.of(app(), 2)
    assert not isinstance(grid, World)
    assert clock_of(grid) is time.monotonic and simulated_seconds(grid) is None
    assert online(grid, PEOPLE) is PEOPLE.clients and await_online(grid, PEOPLE) is PEOPLE.clients
    assert online_among(grid, ["3", "1"]) == ["3", "1"]


def test_a_world_says_how_late_it_is_and_who_is_there() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: client in "13")
    world.time = 12.5
    assert isinstance(world, World)
    assert clock_of(world)() == 12.5 and simulated_seconds(world) == 12.5
    assert ids(online(world, PEOPLE)) == ["0", "2"]
    assert online_among(world, ["3", "2"]) == ["2"]
    assert online(ScriptedWorld.with_nodes(), PEOPLE) is PEOPLE.clients  # all: nothing is copied


def test_those_online_are_sorted_whatever_order_a_world_has() -> None:
    class Backwards(ScriptedWorld):
        def online(self, clients: object) -> list[str]:
            return ["3", "0"]

    assert ids(online(Backwards.with_nodes(), PEOPLE)) == ["0", "3"]


def test_the_clock_moves_to_when_somebody_is_online() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: now < 7 or client != "2")
    assert ids(await_online(world, PEOPLE)) == ["2"] and world.time == 7.0
    assert ids(await_online(world, PEOPLE)) == ["2"] and world.time == 7.0
    world = ScriptedWorld.with_nodes(never_online=True)
    assert list(await_online(world, PEOPLE)) == []


def test_the_banned_are_as_good_as_offline() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: now < 7 and client != "2")
    assert ids(online(world, PEOPLE, {"2"})) == []
    assert ids(await_online(world, PEOPLE, {"2"})) == ["0", "1", "3"] and world.time == 7.0
    assert ids(online(InlineGrid.of(app(), 2), PEOPLE, {"2", "gone"})) == ["0", "1", "3"]
    assert ids(await_online(world, PEOPLE, set(PEOPLE.ids))) == [] and world.time == 7.0  # nobody to wait for


def test_nobody_is_waited_for_where_there_is_nobody() -> None:
    assert list(await_online(ScriptedWorld.with_nodes(), Population([], []))) == []
