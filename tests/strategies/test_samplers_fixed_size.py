"""Cohorts of a fixed size: how many are asked, and what cannot be asked."""

import pytest

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.population import ClientInfo
from strategies.samplers import FixedSize, UniformSampler, WeightedSampler

CLIENTS = [ClientInfo(str(number)) for number in range(10)]


@pytest.mark.parametrize("kind", [UniformSampler, WeightedSampler])
@pytest.mark.parametrize(
    ("per_round", "factor", "asked", "goal"),
    [(10, 1.0, 10, 0), (10, 1.3, 13, 10), (10, 1.1, 11, 10), (3, 1.5, 5, 3), (20, 1.001, 21, 20)],
)
def test_over_selection_asks_more_clients_than_the_round_needs(
    kind: type[FixedSize], per_round: int, factor: float, asked: int, goal: int
) -> None:
    sampler = kind(per_round, factor)
    clients = [ClientInfo(f"{number:03d}") for number in range(100)]
    assert len(sampler.sample(1, clients, 0)) == sampler.asked == asked
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


def test_impossible_cohorts_are_refused_at_start() -> None:
    UniformSampler(10).check(10)
    with pytest.raises(StrategyError, match="'clients-per-round' is 11, but there are only 10 clients: set it to"):
        UniformSampler(11).check(10)
    with pytest.raises(StrategyError, match="population is empty"):
        UniformSampler().check(0)
    with pytest.raises(StrategyError, match="'clients-per-round' is -1"):
        UniformSampler(-1)


def test_its_sampling_is_known_unless_speed_decides_who_counts() -> None:
    assert UniformSampler(3).guarantees == Guarantees(gives=frozenset({Property.KNOWN_SAMPLING}))
    assert UniformSampler(3, 1.5).guarantees == WeightedSampler(3).guarantees == Guarantees()
