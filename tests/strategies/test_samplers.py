"""Uniform sampling: addressable by round, independent of order, and really uniform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.population import ClientInfo
from strategies.samplers import UniformSampler

CLIENTS = [ClientInfo(str(number)) for number in range(10)]


def test_a_cohort_is_pinned() -> None:
    assert UniformSampler(3).sample(7, CLIENTS, seed=0) == ["1", "2", "6"]


@given(st.permutations(CLIENTS), st.integers(1, 1000), st.integers(0, 2**63), st.integers(1, 10))
def test_a_cohort_depends_on_round_and_seed_only(clients: list, round: int, seed: int, size: int) -> None:
    cohort = UniformSampler(size).sample(round, clients, seed)
    assert cohort == sorted(set(cohort))
    assert len(cohort) == size
    assert cohort == UniformSampler(size).sample(round, CLIENTS, seed)


def test_rounds_and_seeds_differ() -> None:
    cohorts = {tuple(UniformSampler(5).sample(round, CLIENTS, seed)) for round in range(5) for seed in range(5)}
    assert len(cohorts) > 20


def test_every_pair_is_equally_likely() -> None:
    counts = np.zeros((5, 5))
    for round in range(4000):
        first, second = UniformSampler(2).sample(round, CLIENTS[:5], seed=1)
        counts[int(first), int(second)] += 1
    assert chisquare(counts[np.triu_indices(5, 1)]).pvalue > 0.01


def test_zero_means_all() -> None:
    assert UniformSampler().sample(1, CLIENTS[::-1], 0) == [client.id for client in CLIENTS]
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
