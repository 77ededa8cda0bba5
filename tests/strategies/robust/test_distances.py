"""Distances from products: exact where numbers are whole, and right to many digits where products cancel."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.robust import collected
from strategies.robust.distances import distances_from_mean, squared_distances
from tests.strategies.robust.federations import normal, rows_of, whole


def by_differences(vectors: np.ndarray) -> np.ndarray:
    doubles = vectors.astype(np.float64)
    return np.square(doubles[:, None, :] - doubles[None, :, :]).sum(axis=2)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 7), size=st.integers(1, 40))
def test_of_whole_numbers_they_are_exact(seed: int, count: int, size: int) -> None:
    vectors = whole(seed, count, size)
    np.testing.assert_array_equal(squared_distances(rows_of(vectors)), by_differences(vectors))


def offset(vectors: np.ndarray) -> np.ndarray:
    return vectors * np.float32(1e-6) + np.float32(1)


def scales(vectors: np.ndarray) -> np.ndarray:
    return vectors * np.float32(10.0) ** np.arange(-12, len(vectors) - 12, dtype=np.float32)[:, None]


def one_far_away(vectors: np.ndarray) -> np.ndarray:
    vectors[0] = 1e15
    return vectors


def clusters(vectors: np.ndarray) -> np.ndarray:
    centers = np.repeat(normal(9, 4, vectors.shape[1]) * 1e4, len(vectors) // 4, axis=0)
    return (centers + vectors * 1e-1).astype(np.float32)


def twins(vectors: np.ndarray) -> np.ndarray:
    vectors[4:8] = vectors[:4]
    vectors[8:] = np.nextafter(vectors[:4], np.float32(np.inf))
    return vectors


@pytest.mark.parametrize("arrange", [offset, scales, one_far_away, clusters, twins])
@pytest.mark.parametrize("values", [1, 100, 2**18])
def test_what_cancels_is_taken_again(
    arrange: Callable[[np.ndarray], np.ndarray], values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collected, "VALUES_AT_A_TIME", values)
    vectors = arrange(normal(1, 12, 300))
    actual = squared_distances(rows_of(vectors))
    np.testing.assert_allclose(actual, by_differences(vectors), rtol=1e-8)
    np.testing.assert_array_equal(actual, actual.T)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9))
def test_distances_from_a_mean_need_no_mean(seed: int, count: int) -> None:
    vectors = normal(seed, count, 20).astype(np.float64)
    weights = np.random.default_rng(seed).uniform(0.1, 9, size=count)
    mean = np.average(vectors, axis=0, weights=weights)
    squared = by_differences(vectors)
    expected = np.linalg.norm(vectors - mean, axis=1)
    np.testing.assert_allclose(distances_from_mean(squared, weights), expected, rtol=1e-6, atol=1e-6)


def test_a_mean_that_is_a_row_is_where_that_row_is() -> None:
    squared = by_differences(normal(3, 5, 20))
    from_second = distances_from_mean(squared, np.array([0.0, 2.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(from_second, np.sqrt(squared[1]))
