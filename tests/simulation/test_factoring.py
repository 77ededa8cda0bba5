"""Packs by factoring: everybody once, batches that halve what is left, one pack per worker where a round is short."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as some

from simulation.factoring import packs, spread
from strategies.population import ClientInfo, Population

COHORTS = some.lists(some.integers(0, 500), max_size=60).map(
    lambda loads: [(f"c{position}", float(load)) for position, load in enumerate(loads)]
)


@given(COHORTS, some.integers(1, 8), some.sampled_from([0.0, 1.0, 50.0, 1e9]))
def test_every_client_is_in_one_pack_and_no_pack_is_empty(
    cohort: list[tuple[str, float]], workers: int, least: float
) -> None:
    found = packs(cohort, workers, least)
    assert sorted(client for pack in found for client in pack) == sorted(client for client, _ in cohort)
    assert all(found)


@given(COHORTS, some.integers(1, 8))
def test_without_a_measure_there_is_one_pack_per_worker_as_the_population_deals_them(
    cohort: list[tuple[str, float]], workers: int
) -> None:
    """Two implementations of Graham's rule, written apart."""
    population = Population([ClientInfo(client, int(load)) for client, load in cohort], range(1, workers + 1))
    dealt = population.assign([client for client, _ in cohort])
    assert sorted(map(sorted, packs(cohort, workers, 0.0))) == sorted(map(sorted, dealt.values()))


@given(COHORTS, some.integers(1, 4), some.randoms())
def test_the_order_of_the_clients_does_not_matter(
    cohort: list[tuple[str, float]], workers: int, shuffler: random.Random
) -> None:
    shuffled = shuffler.sample(cohort, len(cohort))
    assert packs(shuffled, workers, 5.0) == packs(cohort, workers, 5.0)


def test_equal_clients_are_packed_as_in_the_papers_table() -> None:
    """Section 3 of the paper: 100 iterations on 4 processors go as 4 x 13, 4 x 6, 4 x 3, 4 x 2 (rounded up), 4 x 1."""
    cohort = [(f"{number:03d}", 1.0) for number in range(100)]
    sizes = [len(pack) for pack in packs(cohort, 4, 1e-9)]
    assert sizes[:4] == [13, 13, 12, 12]
    assert sum(sizes) == 100
    batches = [sum(sizes[start : start + 4]) for start in range(0, len(sizes), 4)]
    left = 100
    for batch in batches[:-1]:
        assert left / 2 <= batch <= left / 2 + 1
        left -= batch


def test_the_longest_clients_go_first_and_lead_their_packs() -> None:
    loads = dict(zip("abcdefgh", (8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0), strict=True))
    found = packs(list(loads.items()), 2, 1e-9)
    assert {found[0][0], found[1][0]} == {"a", "b"}
    for pack in found:
        assert [loads[client] for client in pack] == sorted((loads[client] for client in pack), reverse=True)
    assert max(loads[client] for pack in found[2:] for client in pack) < 7.0


@pytest.mark.parametrize(("least", "count"), [(26.0, 2), (25.0, 4), (13.0, 4), (12.0, 6), (1000.0, 2)])
def test_no_batch_has_packs_below_the_least_load(least: float, count: int) -> None:
    """100 of load on 2 workers: a batch of 2 x 25, then of 2 x 12.5, and so on, as long as its packs are worth it."""
    cohort = [(f"{number:03d}", 1.0) for number in range(100)]
    assert len(packs(cohort, 2, least)) == count


def test_clients_without_any_load_are_dealt_all_the_same() -> None:
    assert packs([("a", 0.0), ("b", 0.0)], 2, 1.0) in ([["a"], ["b"]], [["b"], ["a"]], [["a", "b"]])


def makespan(found: list[list[str]], times: dict[str, float], workers: int) -> float:
    """Hand packs out in order, each to the worker that is free first, and return when the last one is done."""
    free = [0.0] * workers
    for pack in found:
        worker = free.index(min(free))
        free[worker] += sum(times[client] for client in pack)
    return max(free)


def test_uneven_workers_are_evened_out() -> None:
    """Clients that take up to 10 times as long as their load says: packs by factoring lose far less than one each."""
    draw = random.Random(3)
    loads = {f"{number:03d}": draw.uniform(1, 3) for number in range(200)}
    worse = 0
    for _ in range(200):
        times = {client: load * draw.choice([1, 1, 1, 10]) for client, load in loads.items()}
        ideal = sum(times.values()) / 4
        factored = makespan(packs(list(loads.items()), 4, 2.0), times, 4) / ideal
        single = makespan(packs(list(loads.items()), 4, 0.0), times, 4) / ideal
        worse += factored > single
        assert factored < 1.25
    assert worse < 40


def test_the_longest_first_rule_keeps_grahams_bound_against_brute_force() -> None:
    for loads in product((1.0, 3.0, 5.0), repeat=5):
        clients = sorted(((str(p), load) for p, load in enumerate(loads)), key=lambda c: -c[1])
        times = dict(clients)
        best = min(
            max(sum(load for load, side in zip(loads, sides, strict=True) if side == worker) for worker in (0, 1))
            for sides in product((0, 1), repeat=5)
        )
        assert makespan(spread(clients, 2), times, 2) <= (4 / 3 - 1 / 6) * best + 1e-9
