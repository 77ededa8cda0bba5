"""Uniform sampling: addressable by round, independent of order, and really uniform."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.population import ClientInfo, Population
from strategies.samplers import UniformSampler, draw
from strategies.seeding import generator

CLIENTS = [ClientInfo(str(number)) for number in range(10)]


def test_a_cohort_is_pinned() -> None:
    assert UniformSampler(3).sample(7, CLIENTS, seed=0) == ["0", "4", "6"]


@given(st.permutations(CLIENTS), st.integers(1, 1000), st.integers(0, 2**63), st.integers(1, 10))
def test_a_cohort_depends_on_round_and_seed_only(clients: list, round: int, seed: int, size: int) -> None:
    population = Population(clients, [1])  # learnt in any order
    cohort = UniformSampler(size).sample(round, population.clients, seed)
    assert cohort == sorted(set(cohort))
    assert len(cohort) == size
    assert cohort == UniformSampler(size).sample(round, CLIENTS, seed)


def test_rounds_and_seeds_differ() -> None:
    cohorts = {tuple(UniformSampler(5).sample(round, CLIENTS, seed)) for round in range(5) for seed in range(5)}
    assert len(cohorts) > 20


@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 3), (4, 3), (9, 1)])
def test_every_set_is_equally_likely(size: int, count: int) -> None:
    """A right sampler fails one of these four with a probability of at most 4 in 10,000; the seed is fixed."""
    sets = list(combinations(range(size), count))
    drawn = Counter(tuple(draw(size, count, generator(5, round, "", "test"))) for round in range(200 * len(sets)))
    assert set(drawn) <= set(sets)
    assert chisquare([drawn[one] for one in sets]).pvalue > 1e-4


def test_a_small_cohort_of_a_large_population_is_uniform_and_takes_few_numbers() -> None:
    class Counting:
        def __init__(self, inner: np.random.Generator) -> None:
            self.inner, self.calls = inner, 0

        def random(self) -> float:
            self.calls += 1
            return self.inner.random()

    tenths = Counter[int]()
    for round in range(500):
        counting = Counting(generator(6, round, "", "test"))
        places = draw(10**6, 20, counting)  # type: ignore[arg-type]
        assert counting.calls <= 25  # whatever the size of the population; more than one in 10^20 runs would need
        tenths.update(place // 10**5 for place in places)
    assert chisquare([tenths[tenth] for tenth in range(10)]).pvalue > 1e-4  # fails one right sampler in 10,000


class Fixed:
    """A generator of these numbers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def test_drawing_by_hand_rejects_what_was_drawn_before_and_stays_in_range() -> None:
    assert draw(10, 3, Fixed(0.72, 0.05, 0.79, 0.0, 0.31)) == [0, 3, 7]  # type: ignore[arg-type]  # 7, 0, 7, 0, 3
    largest = np.nextafter(1.0, 0.0)
    for size in (3, 5, 10**6 + 1, 2**40 + 1):
        assert draw(size, 1, Fixed(float(largest))) == [size - 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("per_round", "factor", "asked", "goal"),
    [(10, 1.0, 10, 0), (10, 1.3, 13, 10), (10, 1.1, 11, 10), (3, 1.5, 5, 3), (0, 1.0, 0, 0), (20, 1.001, 21, 20)],
)
def test_over_selection_asks_more_clients_than_the_round_needs(
    per_round: int, factor: float, asked: int, goal: int
) -> None:
    sampler = UniformSampler(per_round, factor)
    clients = [ClientInfo(f"{number:03d}") for number in range(100)]
    assert len(sampler.sample(1, clients, 0)) == (asked or 100)
    assert sampler.goal == goal


def test_impossible_over_selections_are_refused() -> None:
    UniformSampler(10, 1.3).check(13)
    with pytest.raises(
        StrategyError, match=r"'over-selection' is 1\.3, which asks 13 clients for 10, but there are on"
    ):
        UniformSampler(10, 1.3).check(12)
    with pytest.raises(StrategyError, match=r"'over-selection' is 0\.5, but must be 1"):
        UniformSampler(10, 0.5)
    with pytest.raises(StrategyError, match="'over-selection' is nan"):
        UniformSampler(10, float("nan"))
    with pytest.raises(StrategyError, match="every client is asked already"):
        UniformSampler(0, 1.5)


def test_zero_means_all() -> None:
    assert UniformSampler().sample(1, CLIENTS, 0) == [client.id for client in CLIENTS]
    UniformSampler().check(1)


def test_all_that_are_left_take_part_when_nodes_are_gone() -> None:
    assert UniformSampler(4).sample(1, CLIENTS[:3], 0) == ["0", "1", "2"]
    assert UniformSampler(4).sample(1, [], 0) == []


def test_impossible_cohorts_are_refused_at_start() -> None:
    UniformSampler(10).check(10)
    with pytest.raises(StrategyError, match="'clients-per-round' is 11, but there are only 10 clients: set it to"):
        UniformSampler(11).check(10)
    with pytest.raises(StrategyError, match="population is empty"):
        UniformSampler().check(0)
    with pytest.raises(StrategyError, match="'clients-per-round' is -1"):
        UniformSampler(-1)


def test_it_promises_nothing() -> None:
    assert UniformSampler(3).guarantees == Guarantees()
