"""Banded factorisation against linear algebra on whole matrices, and its sensitivity against every participation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from strategies.errors import StrategyError
from strategies.privacy.correlated import CorrelatedNoise
from strategies.privacy.matrix_factorization import BandedNoise
from strategies.privacy.tree import TreeNoise
from tests.strategies.privacy.unit_noise import coefficients


def factor(noise: BandedNoise, rounds: int) -> np.ndarray:
    """C, float64 [rounds, rounds]."""
    column = np.zeros(rounds)
    column[: len(noise.column)] = noise.column[:rounds]
    return np.asarray(np.tril(toeplitz(column)))


@pytest.mark.parametrize(("rounds", "bands"), [(1, 0), (2, 2), (5, 0), (5, 3), (8, 1), (16, 0)])
def test_the_noise_of_rounds_is_the_inverse_of_the_factor(rounds: int, bands: int) -> None:
    noise, total = BandedNoise(rounds, bands), 40
    found = coefficients(noise, range(1, total + 1))
    assert not found[:, total:].any()
    np.testing.assert_allclose(found[:, :total], np.linalg.inv(factor(noise, total)), atol=1e-12)
    deviations = [noise.deviation(round) for round in range(1, total + 1)]
    np.testing.assert_allclose(deviations, np.linalg.norm(found, axis=1), rtol=1e-12)


def test_with_all_bands_the_factor_is_the_square_root_of_the_prefix_sums() -> None:
    noise = BandedNoise(30)
    unscaled = factor(noise, 30) / noise.column[0]
    np.testing.assert_allclose(unscaled @ unscaled, np.tril(np.ones((30, 30))), atol=1e-12)
    assert BandedNoise(50, 30).column.tolist() == noise.column.tolist()


@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (2, 2), (3, 2), (3, 3), (4, 0)])
def test_sensitivity_by_every_participation_and_every_sign(rounds: int, bands: int) -> None:
    """In three passes: which of them a client takes part in, and whether it pushes forwards or backwards."""
    noise, passes = BandedNoise(rounds, bands), 3
    whole, largest = factor(noise, rounds * (passes + 1)), 0.0  # a pass more, into which bands reach
    for slot, signs in itertools.product(range(rounds), itertools.product((-1, 0, 1), repeat=passes)):
        moves = np.zeros(len(whole))
        moves[slot : rounds * passes : rounds] = signs
        moved = float(np.linalg.norm(whole @ moves))
        assert moved <= np.linalg.norm(signs) * noise.sensitivity * (1 + 1e-12)
        largest = max(largest, moved)
    assert largest == pytest.approx(np.sqrt(passes))
    assert noise.sensitivity == pytest.approx(1.0, rel=1e-12)


def test_more_bands_than_rounds_would_not_be_bounded_so() -> None:
    """Why they are refused: columns would overlap, and two participations move more than two apart do."""
    whole, moves = factor(BandedNoise(3), 9), np.zeros(9)
    moves[[0, 2]] = 1.0  # 2 rounds apart, with 3 bands
    assert np.linalg.norm(whole @ moves) > 1.1 * np.sqrt(2)
    with pytest.raises(StrategyError, match=r"'mf-bands' is 3, but must be from 1 to the 2 rounds of a pass"):
        BandedNoise(2, 3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.data(), st.sets(st.integers(1, 40), min_size=1))
def test_rounds_that_are_left_out_change_nothing_for_the_others(
    rounds: int, data: st.DataObject, held: set[int]
) -> None:
    noise, order = BandedNoise(rounds, data.draw(st.integers(0, rounds))), sorted(held)
    found, whole = coefficients(noise, order), coefficients(noise, range(1, 41))
    np.testing.assert_allclose(found, whole[np.array(order) - 1], atol=1e-12)


def spread(noise: CorrelatedNoise, total: int) -> tuple[float, float]:
    """The root mean square deviation of all prefix sums, and that of the last, at one noise multiplier of a pass."""
    prefixes = coefficients(noise, range(1, total + 1)).cumsum(axis=0) * noise.sensitivity
    squares = np.square(prefixes).sum(axis=1)
    return float(np.sqrt(squares.mean())), float(np.sqrt(squares[-1]))


@pytest.mark.parametrize(("rounds", "passes"), [(4, 12), (8, 6), (16, 1), (16, 3), (50, 1), (50, 2)])
def test_prefix_sums_have_less_noise_than_the_trees_and_far_less_than_independent_noise(
    rounds: int, passes: int
) -> None:
    total = rounds * passes
    (ours, last), (trees, trees_last), (independent, _) = (
        spread(noise, total) for noise in (BandedNoise(rounds), TreeNoise(rounds), BandedNoise(rounds, 1))
    )
    assert independent == pytest.approx(np.sqrt((total + 1) / 2))
    assert ours < 0.7 * trees and ours < 0.65 * independent
    assert last < trees_last


def test_the_state_holds_one_vector_less_than_there_are_bands() -> None:
    noise, state = BandedNoise(6, 4), {}
    for number in range(1, 10):
        released, state = noise.next(number, 3, state, np.random.default_rng(number))
        assert len(state) == 1 + min(noise.vectors, number) and noise.vectors == 3
        assert np.array_equal(state["noise-1"], released)
    assert BandedNoise(6, 1).next(1, 3, {}, np.random.default_rng(1))[1].keys() == {"round"}


def test_a_round_that_has_had_its_noise_gets_none_again() -> None:
    _, state = BandedNoise(4).next(7, 5, {}, np.random.default_rng(3))
    with pytest.raises(StrategyError, match="Round 7 cannot get noise after round 7"):
        BandedNoise(4).next(7, 5, state, np.random.default_rng(3))
