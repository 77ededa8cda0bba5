"""Top-k against a sort, and what makes it an approximation that error feedback can mend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies.compression.top_k import TopK, largest

FEW_VALUES = arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-2, -1, -0.0, 0, 0.5, 1, 2, 3]))


@given(FEW_VALUES, st.integers(1, 40))
def test_the_largest_are_those_that_a_stable_sort_puts_first(values: np.ndarray, count: int) -> None:
    count = min(count, len(values))
    expected = sorted(sorted(range(len(values)), key=lambda k: -abs(float(values[k])))[:count])
    assert largest(np.abs(values), count).tolist() == expected


@pytest.mark.parametrize(
    ("share", "size", "count"), [(0.01, 199_210, 1992), (1 / 400, 199_210, 498), (1e-9, 5, 1), (1.0, 5, 5), (0.3, 5, 2)]
)
def test_k(share: float, size: int, count: int) -> None:
    assert TopK(share).count(size) == count


def test_values_come_with_their_sign_and_place() -> None:
    values, positions = TopK(0.5).select(np.array([1, -5, 0, 3, 2, -4], np.float32), 0)
    assert (positions.tolist(), values.tolist()) == ([1, 3, 5], [-5, 3, -4])


def test_it_is_a_contraction() -> None:
    """||x - top_k(x)||^2 <= (1 - k/n) ||x||^2 (Stich et al. 2018), with equality where all are as large."""
    delta = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for share in (0.001, 0.1, 0.5, 1.0):
        values, _ = TopK(share).select(delta, 0)
        assert float(delta @ delta) - float(values @ values) <= (1 - share) * float(delta @ delta) + 1e-3
    assert TopK(0.1).select(np.ones(1000, np.float32), 0)[0].sum() == 100


def test_nothing_is_agreed_on() -> None:
    assert TopK(0.1).agreed(10, 0) is None
