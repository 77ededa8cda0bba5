"""Noise on sums: its size and distribution; that blocks, seeds and the system's entropy are what they should be."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from strategies.fixed_point import BLOCK, FixedPointSum
from strategies.privacy.noise import NoiseSource, derived_noise, noised_mean, system_noise


def total_of(*deltas: np.ndarray) -> FixedPointSum:
    total = FixedPointSum(len(deltas[0]))
    for delta in deltas:
        total.add(delta.astype(np.float32), 1.0)
    return total


def test_noise_on_nothing_has_the_deviation_and_is_gaussian() -> None:
    """A fixed seed; for another, sd and mean would be off with probability 1e-5, the shape with 1e-3."""
    mean = noised_mean(FixedPointSum(100_000), 3.0, 1.0, np.random.default_rng(5))
    assert np.std(mean) == pytest.approx(3.0, rel=0.01)  # sd of the sample's: 0.0022 of it
    assert abs(np.mean(mean)) < 4.4 * 3.0 / np.sqrt(100_000)
    assert stats.kstest(mean / 3.0, "norm").pvalue > 1e-3


def test_without_noise_it_is_the_sum_by_the_divisor_and_not_by_the_count() -> None:
    total = total_of(np.array([1.0, 2.0]), np.array([3.0, -5.0]))
    assert noised_mean(total, 0.0, 8.0, np.random.default_rng(0)).tolist() == [0.5, -0.375]
    assert total.mean().tolist() == [2.0, -1.5]  # and the sum itself is as before


def test_blocks_are_one_stream_and_the_noise_is_added_in_float64() -> None:
    size = 2 * BLOCK + 17
    deltas = np.random.default_rng(2).normal(size=(3, size)).astype(np.float32)
    draws = np.random.default_rng(9).standard_normal(size)
    expected = (deltas.astype(np.float64).sum(axis=0) + 0.7 * draws) / 5.0
    noised = noised_mean(total_of(*deltas), 0.7, 5.0, np.random.default_rng(9))
    np.testing.assert_allclose(noised, expected, rtol=2**-23, atol=1e-9)


def check_rounds_differ(source: Callable[[int], NoiseSource]) -> None:
    draws = {(seed, round): source(seed)(round).random() for seed in (1, 2) for round in (1, 2)}
    assert len(set(draws.values())) == 4
    assert source(2)(1).random() == draws[2, 1]


def test_derived_noise_can_be_repeated_and_differs_by_seed_and_round() -> None:
    check_rounds_differ(derived_noise)


def test_the_systems_noise_cannot_be_repeated() -> None:
    np.random.seed(0)
    first = system_noise(1).random(4)
    np.random.seed(0)
    assert not np.any(system_noise(1).random(4) == first)
