"""Poisson selection: independent, of known probability, and empty where chance will have it so."""

from collections import Counter

import pytest
from scipy.stats import binom, chisquare

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.population import ClientInfo
from strategies.samplers import PoissonSampler

CLIENTS = [ClientInfo(str(number)) for number in range(5)]


def test_sizes_are_binomial_and_every_client_takes_part_as_often() -> None:
    """A right sampler fails one of these two with a probability of at most 2 in 10,000; the seed is fixed."""
    rounds = 2000
    cohorts = [PoissonSampler(2).sample(round, CLIENTS, 9) for round in range(rounds)]
    sizes = Counter(map(len, cohorts))
    assert (
        chisquare([sizes[size] for size in range(6)], [rounds * binom.pmf(s, 5, 0.4) for s in range(6)]).pvalue > 1e-4
    )
    for client in CLIENTS:
        taken = sum(client.id in cohort for cohort in cohorts)
        assert chisquare([taken, rounds - taken], [0.4 * rounds, 0.6 * rounds]).pvalue > 1e-4 / 5


def test_it_says_its_rate_and_gives_known_independent_sampling() -> None:
    sampler = PoissonSampler(2)
    assert (sampler.rate(5), sampler.rate(2), sampler.rate(1)) == (0.4, 1.0, 1.0)
    gives = frozenset({Property.KNOWN_SAMPLING, Property.INDEPENDENT_SAMPLING})
    assert sampler.guarantees == Guarantees(gives=gives)
    assert sampler.goal == 0


def test_a_cohort_may_be_empty() -> None:
    empty = [round for round in range(100) if not PoissonSampler(1).sample(round, CLIENTS, 0)]
    assert empty  # of 100 rounds 0.8^5 = 33 % on average: none at all has a probability of 10^-17


def test_to_stop_early_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"'over-selection' is 1\.3, but with 'selection' 'poisson' chance alone"):
        PoissonSampler.of({"clients-per-round": 3, "over-selection": 1.3})
