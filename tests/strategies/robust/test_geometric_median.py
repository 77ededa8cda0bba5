"""The geometric median: against SciPy's minimiser, the algorithm made with vectors, and attackers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from strategies.errors import StrategyError
from strategies.robust import GeometricMedian
from tests.strategies.robust.federations import aggregated, normal, updates_of


def weiszfeld(vectors: np.ndarray, weights: np.ndarray, steps: int) -> np.ndarray:
    """The paper's algorithm 2 as it stands there, on vectors."""
    points = vectors.astype(np.float64)
    step = np.average(points, axis=0, weights=weights)
    for _ in range(steps):
        step = np.average(points, axis=0, weights=weights / np.maximum(1e-6, np.linalg.norm(points - step, axis=1)))
    return step


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 7), steps=st.integers(1, 5))
def test_steps_in_distances_are_the_steps_in_vectors(seed: int, count: int, steps: int) -> None:
    vectors, weights = normal(seed, count, 6), np.random.default_rng(seed).integers(1, 30, size=count).astype(float)
    for weighting, counts in (("examples", weights), ("uniform", np.ones(count))):
        actual = aggregated(GeometricMedian(steps, weighting=weighting), updates_of(vectors, weights.tolist()))
        np.testing.assert_allclose(actual, weiszfeld(vectors, counts, steps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_it_minimises_the_sum_of_distances(seed: int) -> None:
    vectors, weights = normal(seed, 7, 4), [3.0, 1.0, 4.0, 1.0, 5.0, 2.0, 2.0]

    def objective(point: np.ndarray) -> float:
        return float(np.dot(weights, np.linalg.norm(vectors.astype(np.float64) - point, axis=1)))

    found = aggregated(GeometricMedian(2000, weighting="examples"), updates_of(vectors, weights))
    best = minimize(objective, vectors.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert objective(found.astype(np.float64)) <= best.fun * (1 + 1e-6)


def test_on_a_line_it_is_the_median() -> None:
    result = aggregated(GeometricMedian(1000), updates_of([[1.0], [2.0], [4.0], [50.0], [60.0]]))
    assert result == pytest.approx([4.0], abs=1e-3)


def test_an_update_with_more_than_half_the_weight_is_the_median() -> None:
    updates = updates_of([[1.0, 0.0], [5.0, 5.0], [0.0, 9.0]], [7.0, 3.0, 3.0])
    np.testing.assert_allclose(aggregated(GeometricMedian(weighting="examples"), updates), [1.0, 0.0], atol=1e-3)


@pytest.mark.parametrize("size", [10.0, 1e4, 1e8])
def test_the_default_leaves_nothing_of_what_attackers_pull_and_three_steps_do(size: float) -> None:
    honest = normal(1, 14, 50)
    attacked = updates_of(np.vstack([honest, np.full((6, 50), size, np.float32)]))
    spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).mean()

    def off(rule: GeometricMedian) -> float:
        return float(np.linalg.norm(aggregated(rule, attacked) - honest.mean(axis=0)))

    assert off(GeometricMedian(tolerated=6)) < spread
    assert size < 1e4 or off(GeometricMedian(3, tolerated=6)) > 100 * spread


def test_what_it_asks_for() -> None:
    assert GeometricMedian(tolerated=6).shortfall(13) == ""
    assert "only among 2f + 1 = 13 updates or more, but a round has 12" in GeometricMedian(tolerated=6).shortfall(12)
    with pytest.raises(StrategyError, match="'rfa-iterations' is 0, but must be 1 or more"):
        GeometricMedian(0)


def test_it_reads_its_keys() -> None:
    keys = {"rfa-iterations": 7, "attackers-tolerated": 2, "weighting": "examples"}
    assert GeometricMedian.of(keys) == GeometricMedian(7, 2, "examples")
    assert GeometricMedian.of({}) == GeometricMedian()
