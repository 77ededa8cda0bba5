"""Draws: every set as likely as it should be, in as few steps as promised."""

import math
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from strategies.samplers import draw, draw_independently, draw_weighted
from strategies.seeding import generator


class Counting:
    """A generator that counts the uniform numbers it gives."""

    def __init__(self, inner: np.random.Generator) -> None:
        self.inner, self.calls = inner, 0

    def random(self) -> float:
        self.calls += 1
        return self.inner.random()


class Fixed:
    """A generator of these numbers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self, size: int | None = None) -> float | np.ndarray:
        return self.numbers.pop(0) if size is None else np.array([self.numbers.pop(0) for _ in range(size)])


@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 3), (4, 3), (9, 1)])
def test_every_set_is_equally_likely(size: int, count: int) -> None:
    """A right sampler fails one of these four with a probability of at most 4 in 10,000; the seed is fixed."""
    sets = list(combinations(range(size), count))
    drawn = Counter(tuple(draw(size, count, generator(5, round, "", "test"))) for round in range(200 * len(sets)))
    assert set(drawn) <= set(sets)
    assert chisquare([drawn[one] for one in sets]).pvalue > 1e-4


def test_a_small_cohort_of_a_large_population_is_uniform_and_takes_few_numbers() -> None:
    tenths = Counter[int]()
    for round in range(500):
        counting = Counting(generator(6, round, "", "test"))
        places = draw(10**6, 20, counting)  # type: ignore[arg-type]
        assert counting.calls <= 25  # whatever the size of the population; more than one in 10^20 runs would need
        tenths.update(place // 10**5 for place in places)
    assert chisquare([tenths[tenth] for tenth in range(10)]).pvalue > 1e-4  # fails one right sampler in 10,000


def test_drawing_by_hand_rejects_what_was_drawn_before_and_stays_in_range() -> None:
    assert draw(10, 3, Fixed(0.72, 0.05, 0.79, 0.0, 0.31)) == [0, 3, 7]  # type: ignore[arg-type]  # 7, 0, 7, 0, 3
    largest = np.nextafter(1.0, 0.0)
    for size in (3, 5, 10**6 + 1, 2**40 + 1):
        assert draw(size, 1, Fixed(float(largest))) == [size - 1]  # type: ignore[arg-type]


# Independent draws.


@pytest.mark.parametrize(("size", "rate"), [(3, 0.5), (4, 0.2), (3, 0.9)])
def test_each_set_of_independent_draws_is_as_likely_as_its_product(size: int, rate: float) -> None:
    """A right sampler fails one of these three with a probability of at most 3 in 10,000; the seed is fixed."""
    sets = [one for count in range(size + 1) for one in combinations(range(size), count)]
    trials = 20_000
    chance = generator(2, size, "", "test")
    drawn = Counter(tuple(draw_independently(size, rate, chance)) for _ in range(trials))
    expected = [trials * rate ** len(one) * (1 - rate) ** (size - len(one)) for one in sets]
    assert set(drawn) <= set(sets)
    assert chisquare([drawn[one] for one in sets], expected).pvalue > 1e-4


def test_the_size_of_an_independent_draw_is_binomial() -> None:
    """Fails one right sampler in 10,000; the sizes at both ends are put together, for 5 expected each."""
    trials, size, rate = 4000, 10_000, 0.0005
    chance = generator(3, 0, "", "test")
    sizes = [len(draw_independently(size, rate, chance)) for _ in range(trials)]
    drawn = Counter(min(max(count, 1), 11) for count in sizes)
    expected = [trials * binom.pmf(count, size, rate) for count in range(12)]
    expected = [expected[0] + expected[1], *expected[2:11], trials * binom.sf(10, size, rate)]
    assert min(expected) > 5
    assert chisquare([drawn[count] for count in range(1, 12)], expected).pvalue > 1e-4


def test_independent_draws_take_one_number_each_and_reach_both_ends() -> None:
    counting = Counting(generator(4, 1, "", "test"))
    places = draw_independently(10**9, 1e-8, counting)  # type: ignore[arg-type]
    assert counting.calls == len(places) + 1
    assert places == sorted(set(places)) and places[0] >= 0 and places[-1] < 10**9
    assert draw_independently(3, 0.5, Fixed(0.0, 0.1, 0.4, 0.0)) == [0, 1, 2]  # type: ignore[arg-type]
    largest = float(np.nextafter(1.0, 0.0))
    assert draw_independently(10, 0.5, Fixed(largest)) == []  # type: ignore[arg-type]


def test_certain_and_impossible_rates() -> None:
    assert draw_independently(4, 1.0, Fixed()) == [0, 1, 2, 3]  # type: ignore[arg-type]
    assert draw_independently(4, 0.0, Fixed()) == []  # type: ignore[arg-type]
    assert draw_independently(0, 0.5, Fixed(0.0)) == []  # type: ignore[arg-type]


def test_the_gap_to_the_next_draw_is_geometric_by_hand() -> None:
    """With rate 1/2 the gap is at least k with probability 2^-k: the numbers 1 - 2^-k are where it grows."""
    for gap in range(1, 20):
        below, above = 1 - 2.0**-gap - 1e-12, 1 - 2.0**-gap + 1e-12
        assert draw_independently(40, 0.5, Fixed(below, 1 - 1e-16))[0] == gap - 1  # type: ignore[arg-type]
        assert draw_independently(40, 0.5, Fixed(above, 1 - 1e-16))[0] == gap  # type: ignore[arg-type]


# Weighted draws.


def orders(weights: list[float], count: int) -> dict[frozenset[int], float]:
    """The probability of each set, by brute force: one after the other, each by its weight among those left."""
    found: dict[frozenset[int], float] = {}
    for order in permutations(range(len(weights)), count):
        chance, left = 1.0, sum(weights)
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        found[frozenset(order)] = found.get(frozenset(order), 0.0) + chance
    return found


@pytest.mark.parametrize(
    ("weights", "count"),
    [([1.0, 2.0, 3.0, 4.0], 1), ([1.0, 2.0, 3.0, 4.0], 2), ([5.0, 1.0, 1.0, 1.0, 2.0], 3), ([7.0, 7.0, 7.0], 2)],
)
def test_each_set_is_as_likely_as_drawing_one_by_one_makes_it(weights: list[float], count: int) -> None:
    """A right sampler fails one of these four with a probability of at most 4 in 10,000; the seed is fixed."""
    expected, trials = orders(weights, count), 20_000
    assert math.fsum(expected.values()) == pytest.approx(1)
    chance = generator(8, count, "", "test")
    drawn = Counter(frozenset(draw_weighted(np.array(weights), count, chance)) for _ in range(trials))
    assert set(drawn) <= set(expected)
    assert chisquare([drawn[one] for one in expected], [trials * p for p in expected.values()]).pvalue > 1e-4


def test_weighted_draws_by_hand() -> None:
    # -log(1 - u): 0.105, 0.693, 2.303; divided by the weights: 0.105, 0.0693, 0.0768
    numbers = Fixed(0.1, 0.5, 0.9)
    assert draw_weighted(np.array([1.0, 10.0, 30.0]), 2, numbers) == [1, 2]  # type: ignore[arg-type]


def test_a_weight_of_zero_is_drawn_only_where_the_others_are_too_few() -> None:
    weights = np.array([0.0, 1.0, 0.0, 1.0])
    assert draw_weighted(weights, 2, Fixed(0.0, 0.9, 0.9, 0.9)) == [1, 3]  # type: ignore[arg-type]
    assert draw_weighted(weights, 3, Fixed(0.0, 0.9, 0.9, 0.9)) == [0, 1, 3]  # type: ignore[arg-type]
    assert draw_weighted(weights, 0, Fixed()) == draw_weighted(weights, 9, Fixed()) == [0, 1, 2, 3]  # type: ignore[arg-type]
