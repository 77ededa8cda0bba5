"""What holds for every sampler: cohorts of clients that exist, from round and seed alone, whatever else happened."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.population import ClientInfo, Population
from strategies.samplers import PoissonSampler, PowerOfChoice, Sampler, UniformSampler, WeightedSampler, no_losses

CLIENTS = [ClientInfo(str(number), 10 * number if number % 3 else None) for number in range(10)]
IDS = [client.id for client in CLIENTS]
SAMPLERS: list[Sampler] = [
    UniformSampler(3),
    UniformSampler(3, 1.5),
    UniformSampler(),
    PoissonSampler(3),
    WeightedSampler(3),
    WeightedSampler(3, 1.5),
    PowerOfChoice(3),
    PowerOfChoice(3, 1.5, 7),
]
PINNED = [
    ["0", "4", "6"],
    ["0", "4", "6", "7", "8"],
    IDS,
    ["2", "3", "5"],
    ["1", "6", "8"],
    ["0", "1", "6", "7", "8"],
    ["4", "7", "8"],
    ["2", "4", "7", "8", "9"],
]
by_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def losses(clients: Sequence[str]) -> Mapping[str, float]:
    return {client: float(int(client) * 7 % 10) for client in clients}


@pytest.mark.parametrize(("sampler", "cohort"), zip(SAMPLERS, PINNED, strict=True), ids=repr)
def test_cohorts_are_pinned(sampler: Sampler, cohort: list[str]) -> None:
    """Another order of draws would change every run there was."""
    assert sampler.sample(7, CLIENTS, 0, losses) == cohort


@by_sampler
@given(clients=st.permutations(CLIENTS), round=st.integers(1, 1000), seed=st.integers(0, 2**63))
def test_a_cohort_depends_on_round_and_seed_only(sampler: Sampler, clients: list, round: int, seed: int) -> None:
    population = Population(clients, [1])  # learnt in any order
    cohort = sampler.sample(round, population.clients, seed, losses)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(IDS)
    for earlier in range(3):
        sampler.sample(earlier, CLIENTS, seed, losses)
    np.random.random(5)
    assert cohort == sampler.sample(round, CLIENTS, seed, losses)


@by_sampler
def test_rounds_and_seeds_differ(sampler: Sampler) -> None:
    cohorts = {tuple(sampler.sample(round, CLIENTS, seed, losses)) for round in range(5) for seed in range(5)}
    assert sampler == UniformSampler() or len(cohorts) > 8


@by_sampler
def test_all_that_are_left_may_take_part_when_nodes_are_gone(sampler: Sampler) -> None:
    assert sampler.sample(1, CLIENTS[:3], 0, no_losses) == ["0", "1", "2"]
    assert sampler.sample(1, [], 0, no_losses) == []


@by_sampler
def test_a_round_is_for_no_more_updates_than_there_are_clients(sampler: Sampler) -> None:
    assert sampler.cohort_size(2) == 2
    assert sampler.cohort_size(10) == (10 if sampler == UniformSampler() else 3)


@by_sampler
def test_impossible_cohorts_are_refused_at_start(sampler: Sampler) -> None:
    sampler.check(10)
    with pytest.raises(StrategyError, match="population is empty"):
        sampler.check(0)
    if sampler != UniformSampler():
        with pytest.raises(StrategyError, match="'clients-per-round' is 3, but there are only 2 clients: set it to"):
            sampler.check(2)


@pytest.mark.parametrize("kind", [UniformSampler, WeightedSampler, PoissonSampler, PowerOfChoice])
def test_options_are_read_and_mistakes_told(kind: type[Sampler]) -> None:
    assert kind.of({"clients-per-round": 4}) == kind(4)  # type: ignore[attr-defined, call-arg]
    with pytest.raises(StrategyError, match="'clients-per-round' is -1"):
        kind.of({"clients-per-round": -1})  # type: ignore[attr-defined]
    with pytest.raises(StrategyError, match="'clients-per-round' is 'x', but must be a whole number"):
        kind.of({"clients-per-round": "x"})  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [WeightedSampler, PoissonSampler, PowerOfChoice])
def test_who_asks_all_has_nothing_to_choose(kind: type[Sampler]) -> None:
    with pytest.raises(StrategyError, match="but 'clients-per-round' 0 asks every client: set it to how many"):
        kind.of({})  # type: ignore[attr-defined]


def test_there_is_nobody_to_ask_where_nobody_said_whom() -> None:
    with pytest.raises(StrategyError, match="Nobody can ask 6 clients for their losses here"):
        PowerOfChoice(3).sample(1, CLIENTS, 0)
