"""Centered clipping: by hand, against the algorithm made with vectors, over rounds, and its bound on influence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.robust import CenteredClipping
from tests.strategies.robust.federations import aggregated, normal, updates_of


def by_vectors(vectors: np.ndarray, center: np.ndarray, clip_norm: float, steps: int) -> np.ndarray:
    """The paper's algorithm 2 as it stands there."""
    step, points = center.astype(np.float64), vectors.astype(np.float64)
    for _ in range(steps):
        lengths = np.linalg.norm(points - step, axis=1, keepdims=True)
        step = step + ((points - step) * np.minimum(1, clip_norm / np.maximum(lengths, 1e-300))).mean(axis=0)
    return step


def test_by_hand() -> None:
    center = {"center": np.zeros(2, np.float32)}
    updates = updates_of([[3, 4], [0, 0.5], [-300, -400]])  # lengths 5, 1/2, 500
    expected = [(0.6 + 0 - 0.6) / 3, (0.8 + 0.5 - 0.8) / 3]
    np.testing.assert_allclose(aggregated(CenteredClipping(1.0), updates, center), expected, atol=1e-8)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 7), steps=st.integers(1, 4), norm=st.floats(0.1, 5))
def test_steps_in_distances_are_the_steps_in_vectors(seed: int, count: int, steps: int, norm: float) -> None:
    vectors, center = normal(seed, count, 6), normal(seed + 1, 1, 6)[0]
    actual = aggregated(CenteredClipping(norm, steps), updates_of(vectors), {"center": center})
    np.testing.assert_allclose(actual, by_vectors(vectors, center, norm, steps), rtol=1e-5, atol=1e-6)


def test_nothing_to_clip_leaves_the_mean() -> None:
    vectors = normal(1, 5, 9)
    result = aggregated(CenteredClipping(1e6), updates_of(vectors), {"center": np.full(9, 100, np.float32)})
    np.testing.assert_allclose(result, vectors.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_round_goes_on_from_the_last_aggregate() -> None:
    rule, vectors = CenteredClipping(0.5), normal(2, 5, 9)
    state, expected = rule.init(9), np.zeros(9)
    assert not state["center"].any() and state["center"].dtype == np.float32
    for _ in range(12):
        fold = rule.start(9, state)
        for update in updates_of(vectors):
            fold.add(update)
        expected = by_vectors(vectors, expected, 0.5, 1)
        np.testing.assert_allclose(fold.result(), expected, rtol=1e-5, atol=1e-6)
        state = fold.state()
        assert state["center"] is fold.result() or np.array_equal(state["center"], fold.result())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1.0, 1e6, 1e30]))
def test_no_update_moves_it_by_more_than_the_norm_over_n(seed: int, size: float) -> None:
    vectors, rule = normal(seed, 6, 5), CenteredClipping(2.0)
    attacked = vectors.copy()
    attacked[3] = normal(seed + 1, 1, 5)[0] * np.float32(size)
    without = aggregated(rule, updates_of(np.vstack([vectors[:3], np.zeros((1, 5)), vectors[4:]])), rule.init(5))
    with_it = aggregated(rule, updates_of(attacked), rule.init(5))
    assert np.linalg.norm(with_it - without) <= 2.0 / 6 * (1 + 1e-5)


def test_what_it_asks_for() -> None:
    assert CenteredClipping(tolerated=2).shortfall(5) == ""
    assert "only among 2f + 1 = 5 updates or more, but a round has 4" in CenteredClipping(tolerated=2).shortfall(4)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(StrategyError, match=r"'centered-clip-norm' is .*, but must be a finite number above 0"):
            CenteredClipping(bad)
    with pytest.raises(StrategyError, match="'centered-clip-iterations' is 0, but must be 1 or more"):
        CenteredClipping(iterations=0)


def test_it_reads_its_keys() -> None:
    keys = {"centered-clip-norm": 3, "centered-clip-iterations": 2, "attackers-tolerated": 1}
    assert CenteredClipping.of(keys) == CenteredClipping(3.0, 2, 1)
    assert CenteredClipping.of({}) == CenteredClipping()
