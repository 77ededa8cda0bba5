"""Placement on machines that exist on paper only: cores, memory, GPUs shared and spread, refusals in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from app.errors import UserError
from simulation.resources import (
    MB,
    MEMORY_SHARE,
    Footprint,
    Machine,
    Placement,
    Wish,
    place,
    store_bytes,
)

GB = 1000 * MB
LAPTOP = Machine(8, 16 * GB)
GPU_SERVER = Machine(32, 256 * GB, gpus=4, gpu_memory=24 * GB)
SMALL = Footprint(model=1 * MB, data=200 * MB)


def test_a_worker_per_core_and_no_more_than_a_round_can_use() -> None:
    assert place([LAPTOP], Wish(), SMALL) == Placement(8, 1.0, 0.0)
    assert place([LAPTOP], Wish(most_useful=3), SMALL) == Placement(3)
    assert place([LAPTOP, LAPTOP], Wish(most_useful=100), SMALL) == Placement(16)


def test_memory_bounds_the_workers() -> None:
    large = Footprint(model=100 * MB, data=3 * GB)  # 0.7 + 8 x 0.1 + 3 = 4.5 GB; 80 % of 16 GB holds 2
    assert place([LAPTOP], Wish(), large).workers == 2
    assert place([LAPTOP, Machine(2, 64 * GB)], Wish(), large).workers == 4


def test_workers_that_were_asked_for_share_the_cores() -> None:
    assert place([LAPTOP], Wish(workers=4), SMALL) == Placement(4, 1.0)
    assert place([Machine(8, 32 * GB)], Wish(workers=16), SMALL) == Placement(16, 0.5)


def test_a_gpu_is_shared_as_far_as_memory_and_cores_go() -> None:
    one = Machine(16, 64 * GB, gpus=1, gpu_memory=24 * GB)
    assert place([one], Wish(gpus=1), SMALL) == Placement(8, 1.0, 0.125)
    assert place([Machine(3, 64 * GB, 1, 24 * GB)], Wish(gpus=1), SMALL) == Placement(3, 1.0, 0.3333)
    wide = Footprint(model=500 * MB)  # 0.6 + 0.4 + 4 = 5 GB of the GPU
    assert place([one], Wish(gpus=1), wide) == Placement(4, 1.0, 0.25)


def test_workers_are_spread_over_all_gpus_of_all_machines() -> None:
    placed = place([GPU_SERVER, GPU_SERVER], Wish(gpus=8), SMALL)
    assert placed == Placement(64, 1.0, 0.125)
    assert place([GPU_SERVER], Wish(workers=2, gpus=4), SMALL) == Placement(2, 1.0, 2.0)
    assert place([GPU_SERVER], Wish(workers=12, gpus=4), SMALL) == Placement(12, 1.0, 0.3333)


def test_a_machine_without_gpus_lends_no_cores_to_those_with_some() -> None:
    assert place([Machine(64, 256 * GB), Machine(2, 64 * GB, 1, 24 * GB)], Wish(gpus=1), SMALL).workers == 2


@pytest.mark.parametrize(
    ("machines", "wish", "footprint", "sentence"),
    [
        ([LAPTOP], Wish(gpus=1), SMALL, r"--gpus is 1, but there are 0 GPUs: lower --gpus"),
        ([GPU_SERVER], Wish(gpus=5), SMALL, r"--gpus is 5, but there are 4 GPUs"),
        ([GPU_SERVER], Wish(gpus=4), Footprint(4 * GB), r"needs about 33\.0 GB of GPU memory, but a GPU here has 24"),
        ([GPU_SERVER], Wish(40, 1), SMALL, r"--workers is 40 on 1 GPUs, which is 40 on each, .* holds 23 of about"),
        ([LAPTOP], Wish(workers=15), SMALL, r"15 workers of about 0\.9 GB each do not fit into 80% .* to 14 or fewer"),
        ([Machine(8, 1 * GB)], Wish(), Footprint(data=5 * GB), r"1 worker of about 5\.7 GB .* choose a smaller model"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_change(
    machines: list[Machine], wish: Wish, footprint: Footprint, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        place(machines, wish, footprint)


MACHINES = some.lists(
    some.builds(
        Machine,
        cores=some.integers(1, 128),
        memory=some.integers(1, 1000).map(lambda gb: gb * GB),
        gpus=some.integers(0, 8),
        gpu_memory=some.integers(4, 80).map(lambda gb: gb * GB),
    ),
    min_size=1,
    max_size=4,
)


def hosted(machines: list[Machine], placed: Placement) -> int:
    """Return how many workers a scheduler that fills machine after machine, GPU after GPU, finds room for."""
    found = 0
    for machine in machines:
        by_cores = math.floor(machine.cores / placed.num_cpus + 1e-9)
        if placed.num_gpus >= 1:
            by_gpus = math.floor(machine.gpus / placed.num_gpus)
        else:
            by_gpus = machine.gpus * math.floor(1 / placed.num_gpus + 1e-9) if placed.num_gpus else by_cores
        found += min(by_cores, by_gpus)
    return found


@given(MACHINES, some.builds(Footprint, some.integers(0, 2 * GB), some.integers(0, 20 * GB)))
def test_what_is_chosen_on_cores_has_room_in_cores_and_memory(machines: list[Machine], footprint: Footprint) -> None:
    try:
        placed = place(machines, Wish(), footprint)
    except UserError:
        assert all(MEMORY_SHARE * machine.memory < footprint.memory for machine in machines)
        return
    assert hosted(machines, placed) >= placed.workers
    assert placed.workers * footprint.memory <= MEMORY_SHARE * sum(machine.memory for machine in machines)


@given(MACHINES, some.integers(1, 8), some.builds(Footprint, some.integers(0, 2 * GB)))
def test_no_gpu_holds_more_workers_than_its_memory(machines: list[Machine], gpus: int, footprint: Footprint) -> None:
    assume(sum(machine.gpus for machine in machines) >= gpus)
    try:
        placed = place(machines, Wish(gpus=gpus), footprint)
    except UserError:
        assume(False)
    least = min(machine.gpu_memory for machine in machines if machine.gpus)
    assert 0 < placed.num_gpus <= gpus
    on_one = math.floor(1 / placed.num_gpus + 1e-9) if placed.num_gpus < 1 else 1
    assert on_one * footprint.gpu_memory <= least
    assert placed.workers * placed.num_gpus <= gpus + 1e-9


def test_the_store_fits_into_memory_and_shared_memory() -> None:
    assert store_bytes(16 * GB, 8 * GB) == int(0.2 * 16 * GB)
    assert store_bytes(64 * GB, 64 * MB) == 100 * MB
    assert store_bytes(2000 * GB, 1000 * GB) == 20 * GB
