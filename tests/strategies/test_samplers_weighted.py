"""Selection by size: as often as examples say, the unknown as the average."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from strategies.population import ClientInfo
from strategies.samplers import WeightedSampler
from strategies.samplers.weighted import sizes
from tests.strategies.test_samplers_drawing import orders


@pytest.mark.parametrize("size", [1, 2, 3])
def test_inclusion_is_that_of_drawing_one_by_one(size: int) -> None:
    """A right sampler fails one of these three with a probability of at most 3 in 10,000; the seed is fixed."""
    examples = [5, 1, None, 9]  # the third counts as (5 + 1 + 9) / 3 = 5
    clients = [ClientInfo(str(place), count) for place, count in enumerate(examples)]
    expected, rounds = orders([5.0, 1.0, 5.0, 9.0], size), 2000
    drawn = Counter(frozenset(map(int, WeightedSampler(size).sample(round, clients, 4))) for round in range(rounds))
    assert chisquare([drawn[one] for one in expected], [rounds * p for p in expected.values()]).pvalue > 1e-4


def test_sizes_of_which_none_is_known_are_all_the_same() -> None:
    np.testing.assert_array_equal(sizes([ClientInfo("a"), ClientInfo("b")]), [1.0, 1.0])
    np.testing.assert_array_equal(sizes([ClientInfo("a", 0), ClientInfo("b", 8), ClientInfo("c")]), [0.0, 8.0, 4.0])
    assert sizes([]).shape == (0,)


def test_a_client_without_examples_waits_for_all_others() -> None:
    clients = [ClientInfo("a", 0), ClientInfo("b", 1), ClientInfo("c", 1)]
    assert {tuple(WeightedSampler(2).sample(round, clients, 0)) for round in range(50)} == {("b", "c")}
