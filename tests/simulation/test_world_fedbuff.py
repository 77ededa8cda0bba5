"""FedBuff over a simulated world: equal durations make it synchronous, and others follow from an event queue."""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.world_keys import device_classes
from simulation.devices import Devices
from simulation.inline import InlineGrid
from strategies.records import RoundRecord
from tests.simulation.worlds import A_SECOND_FOR_TEN, BackwardsGrid, WiredGrid, conditions, run, told, world
from tests.strategies import toy_federation as toy

EVERYBODY: dict[str, object] = {"strategy": "fedbuff", "concurrency": 6}


def buffered(grid: object, size: int, rounds: int, **options: object) -> tuple[list[np.ndarray], list[RoundRecord]]:
    return run(grid, rounds=rounds, options={**EVERYBODY, "buffer-size": size, **options})


@pytest.mark.parametrize("devices", [Devices(), Devices(network_mbps=1.0)])
def test_with_equal_durations_and_a_buffer_of_all_it_is_the_synchronous_run(devices: Devices) -> None:
    synchronous, records = run(world(conditions(devices=devices)), rounds=3)
    arrays, steps = buffered(world(conditions(devices=devices)), 6, rounds=3)
    assert toy.same(arrays, synchronous)
    assert [step.simulated_seconds for step in steps] == [record.simulated_seconds for record in records]
    assert all(step.staleness == {"mean": 0.0, "largest": 0.0} for step in steps)


def test_each_step_tells_who_there_is_also_where_nobody_is_sent_to_work_in_it() -> None:
    """Six come back at one instant, and with a buffer of one that is six steps."""
    devices = Devices(device_classes("slow:0.5:1"), example_seconds=0.1)
    _, steps = buffered(world(conditions(devices=devices)), 1, rounds=6)
    told = [step.diversity for step in steps if step.round > 0]
    assert len(told) == 6 and all(one is not None for one in told)
    assert all(sum(group["clients"] for group in one["device-classes"]["groups"].values()) == 6 for one in told if one)


def queue(size: int, steps: int) -> list[tuple[float, list[str], list[int]]]:
    """When each step is made, with whose updates and how stale they are: client k is back every k + 1 seconds."""
    done: list[tuple[float, list[str], list[int]]] = []
    back = [(float(k + 1), str(k)) for k in range(6)]
    base = dict.fromkeys(toy.IDS, 0)
    buffer: list[tuple[str, int]] = []
    while len(done) < steps:
        now = back[0][0]
        landed = []
        while back and back[0][0] == now:
            client = heapq.heappop(back)[1]
            landed.append(client)
            buffer.append((client, len(done) - base[client]))
            if len(buffer) == size:
                done.append((now, [who for who, _ in buffer], [age for _, age in buffer]))
                buffer = []
        for client in landed:
            base[client] = len(done)
            heapq.heappush(back, (now + int(client) + 1, client))
    return done[:steps]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 10])
@pytest.mark.parametrize("grid", [InlineGrid, BackwardsGrid])
def test_steps_are_those_of_an_event_queue(size: int, grid: type[InlineGrid]) -> None:
    _, records = buffered(world(conditions(devices=A_SECOND_FOR_TEN), grid=grid), size, rounds=12)
    for record, (time, clients, ages) in zip(records, queue(size, 12), strict=True):
        assert record.simulated_seconds == time
        assert list(record.selected) == clients
        assert record.staleness == {"mean": pytest.approx(np.mean(ages)), "largest": max(ages)}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 7),
    dropout=st.sampled_from([0.0, 0.3]),
    deadline=st.sampled_from([0.0, 3.0]),
    concurrency=st.integers(1, 6),
)
def test_any_world_is_the_same_on_any_engine(
    seed: int, size: int, dropout: float, deadline: float, concurrency: int
) -> None:
    devices = Devices(device_classes("slow:0.5:3"), example_seconds=0.1, compute_spread=0.5)
    given_conditions = conditions(seed, devices=devices, dropout=dropout)
    options: dict[str, object] = {"strategy": "fedbuff", "buffer-size": size, "concurrency": concurrency}
    rules = {"options": options, "round_deadline": deadline, "max_skipped_rounds": 9, "rounds": 4, "seed": seed}
    results = [
        run(world(given_conditions, nodes=nodes, grid=grid), **rules)  # type: ignore[arg-type]
        for nodes, grid in ((2, WiredGrid), (1, InlineGrid), (3, BackwardsGrid))
    ]
    for arrays, records in results[1:]:
        assert toy.same(arrays, results[0][0])
        assert told(records) == told(results[0][1])


def test_a_fast_client_gives_more_updates_and_the_server_does_not_wait_for_a_slow_one() -> None:
    _, records = buffered(world(conditions(devices=A_SECOND_FOR_TEN)), 5, rounds=20)
    updates: dict[str, int] = defaultdict(int)
    for record in records:
        for client in record.selected:
            updates[client] += 1
    last = records[-1].simulated_seconds
    assert last is not None
    for client, count in updates.items():
        assert count in (int(last // (int(client) + 1)), int(last // (int(client) + 1)) - 1)


def test_a_dropout_is_replaced_and_its_next_try_is_another_draw() -> None:
    grid = world(conditions(devices=A_SECOND_FOR_TEN, dropout=0.5))
    _, records = buffered(grid, 4, rounds=40)
    lost = sum(record.rejected.get("dropout", 0) for record in records)
    assert sum(len(record.accepted) for record in records) > 0
    assert 100 < lost < 260  # 160 updates at a probability of one half: 160 failures on average, deviation 18
