"""The trimmed mean: by hand, against SciPy and a brute force, weighted with and without ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from strategies.errors import StrategyError
from strategies.robust import TrimmedMean
from tests.strategies.robust.federations import aggregated, normal, updates_of, whole


def by_hand(column: np.ndarray, weights: np.ndarray, cut: int) -> float:
    """Sort the values of one coordinate, ties by client, and take the weighted mean of what is in the middle."""
    middle = sorted(range(len(column)), key=lambda place: (column[place], place))[cut : len(column) - cut]
    total = math.fsum(weights[place] for place in middle)
    return math.fsum(float(column[place]) * weights[place] for place in middle) / total


def test_the_five_numbers_of_the_paper_s_idea() -> None:
    assert aggregated(TrimmedMean(0.2), updates_of([[1], [2], [3], [4], [100]])).tolist() == [3.0]


@pytest.mark.parametrize(
    ("beta", "updates", "cut"),
    [
        (0.0, 10, 0),
        (0.01, 3, 1),
        (0.2, 3, 1),
        (0.2, 4, 1),
        (0.2, 5, 1),
        (0.2, 6, 2),
        (0.2, 10, 2),
        (0.1, 30, 3),
        (0.07, 100, 7),
        (0.49, 3, 1),
        (0.49, 4, 1),
        (0.4999, 100, 49),
        (0.4999, 101, 50),
        (0.2, 2, 0),
        (0.2, 1, 0),
    ],
)
def test_how_many_values_are_cut_off_each_end(beta: float, updates: int, cut: int) -> None:
    assert TrimmedMean(beta).trimmed(updates) == cut


@given(beta=st.floats(0, 0.5, exclude_min=True, exclude_max=True), updates=st.integers(3, 10_000))
def test_with_any_beta_at_least_one_value_is_cut_and_one_is_left(beta: float, updates: int) -> None:
    cut = TrimmedMean(beta).trimmed(updates)
    assert cut >= 1 and 2 * cut < updates
    assert cut >= beta * updates * (1 - 1e-5) - 1e-5 or 2 * cut >= updates - 2


@pytest.mark.parametrize("updates", [5, 10, 20])
def test_where_the_share_is_whole_it_is_scipy_s(updates: int) -> None:
    vectors = normal(1, updates, 50)
    expected = stats.trim_mean(vectors.astype(np.float64), 0.2, axis=0)
    np.testing.assert_allclose(aggregated(TrimmedMean(0.2), updates_of(vectors)), expected, rtol=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 7), beta=st.sampled_from([0.01, 0.2, 0.3, 0.49]))
def test_it_is_the_brute_force_with_weights_and_ties(seed: int, count: int, beta: float) -> None:
    rule = TrimmedMean(beta, weighting="examples")
    for vectors in (normal(seed, count, 6), whole(seed, count, 6), whole(seed, count, 6) * np.float32(1e-44)):
        weights = np.random.default_rng(seed).integers(1, 50, size=count).astype(float)
        expected = [by_hand(column, weights, rule.trimmed(count)) for column in vectors.T]
        actual = aggregated(rule, updates_of(vectors, weights.tolist()))
        np.testing.assert_allclose(actual, expected, rtol=3e-7, atol=1e-45)
        plain = aggregated(TrimmedMean(beta), updates_of(vectors, weights.tolist()))
        uniform = [by_hand(column, np.ones(count), rule.trimmed(count)) for column in vectors.T]
        np.testing.assert_allclose(plain, uniform, rtol=3e-7, atol=1e-45)


def test_weights_are_those_of_the_values_that_remain() -> None:
    updates = updates_of([[-5, 9], [1, 1], [2, 2], [100, -7]], [1000, 1, 3, 1000])
    assert aggregated(TrimmedMean(0.2, weighting="examples"), updates).tolist() == [1.75, 1.75]


def test_equal_weights_are_no_weights_to_the_bit() -> None:
    vectors = normal(2, 9, 200)
    plain = aggregated(TrimmedMean(0.2), updates_of(vectors, [7.0] * 9))
    assert aggregated(TrimmedMean(0.2, weighting="examples"), updates_of(vectors, [7.0] * 9)).tobytes() == (
        plain.tobytes()
    )


def test_without_trimming_it_is_the_mean_of_fedavg() -> None:
    updates = updates_of([[1, 2], [5, -2]], [1, 3])
    assert aggregated(TrimmedMean(0.0, weighting="examples"), updates).tolist() == [4.0, -1.0]
    assert aggregated(TrimmedMean(0.0), updates).tolist() == [3.0, 0.0]


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_extreme_values_and_signed_zeros(weighting: str) -> None:
    huge, tiny = float(np.finfo(np.float32).max), 1e-45
    vectors = [[huge, -0.0, -tiny], [huge, 0.0, tiny], [-huge, -0.0, tiny], [huge, -0.0, 0.0]]
    result = aggregated(TrimmedMean(0.2, weighting=weighting), updates_of(vectors, [1, 2, 3, 4]))
    assert result[0] == huge and result[1] == 0 and not np.signbit(result[1])
    assert 0 <= result[2] <= tiny


@pytest.mark.parametrize("beta", [-0.1, 0.5, 1.0, math.nan])
def test_shares_that_leave_nothing_are_refused(beta: float) -> None:
    with pytest.raises(StrategyError, match=r"'trim-beta' is .*, but must be at least 0 and below"):
        TrimmedMean(beta)


def test_too_few_values_to_cut_and_too_few_cut_for_the_attackers() -> None:
    assert TrimmedMean(0.0).shortfall(1) == TrimmedMean(0.2).shortfall(3) == TrimmedMean(0.2, 2).shortfall(10) == ""
    assert TrimmedMean(0.2).shortfall(2) == (
        "the trimmed mean ('trim-beta' 0.2) cuts at least one value off each end and so needs 3 updates or more, but a "
        "round has 2"
    )
    assert TrimmedMean(0.2, tolerated=3).shortfall(10) == (
        "the trimmed mean tolerates as many attackers as values are cut off each end, with 'trim-beta' 0.2 2 of 10, "
        "but 'attackers-tolerated' is 3"
    )


def test_it_reads_its_keys() -> None:
    assert TrimmedMean.of({}) == TrimmedMean(0.2, 0, "uniform")
    keys = {"trim-beta": 0.1, "attackers-tolerated": 2, "weighting": "examples"}
    assert TrimmedMean.of(keys) == TrimmedMean(0.1, 2, "examples")


def test_attackers_as_many_as_are_cut_cannot_move_it_out_of_the_honest_values() -> None:
    honest = normal(3, 16, 30)
    for attack in (1e30, -1e30, 0.0):
        result = aggregated(TrimmedMean(0.2), updates_of(np.vstack([honest, np.full((4, 30), attack, np.float32)])))
        assert (result >= honest.min(axis=0)).all() and (result <= honest.max(axis=0)).all()
