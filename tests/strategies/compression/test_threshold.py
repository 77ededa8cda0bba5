"""Threshold against its definition."""

import numpy as np
import pytest
from scipy import stats

from strategies.compression.threshold import Threshold


def select(multiple: float, *values: float) -> tuple[list[float], list[int]]:
    kept, positions = Threshold(multiple).select(np.array(values, np.float32), 0)
    return kept.tolist(), positions.tolist()


def test_values_of_at_least_so_many_root_mean_squares_are_sent() -> None:
    assert select(1.4, 1, -7, 1, -7, 1, 5) == ([-7, -7], [1, 3])  # the root mean square is sqrt(21)
    assert select(1.5, 1, -7, 1, -7, 1, 5) == ([-7, -7], [1, 3])
    assert select(1.6, 1, -7, 1, -7, 1, 5) == ([], [])
    assert select(1, 3, -3, 3) == ([3, -3, 3], [0, 1, 2])


def test_zeros_are_never_sent() -> None:
    assert select(0.001, 0, -0.0, 0) == ([], [])
    assert select(0.001, 0, 2, -0.0) == ([2], [1])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_the_share_of_normal_values_is_that_of_their_tails_whatever_their_scale(scale: float) -> None:
    size, expected = 200_000, 2 * stats.norm.sf(3)
    delta = (np.random.default_rng(0).normal(size=size) * scale).astype(np.float32)
    sent = len(Threshold(3.0).select(delta, 0)[0])
    assert abs(sent - size * expected) < 5 * np.sqrt(size * expected)  # wrong once in 1.7 million seeds


def test_a_threshold_beyond_every_float_sends_nothing() -> None:
    assert select(1e300, 1e15, 1) == ([], [])


def test_the_number_depends_on_the_update() -> None:
    assert Threshold(3.0).count(10) is None
    assert Threshold(3.0).agreed(10, 0) is None
