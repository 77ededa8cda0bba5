"""The coordinate-wise median: against Python's own, by hand, and half of the clients as attackers."""

import statistics

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.robust import CoordinateMedian
from tests.strategies.robust.federations import aggregated, normal, updates_of, whole


def test_odd_and_even_by_hand() -> None:
    assert aggregated(CoordinateMedian(), updates_of([[1, 9], [2, -9], [300, 0]])).tolist() == [2.0, 0.0]
    assert aggregated(CoordinateMedian(), updates_of([[1, 9], [2, -9], [300, 0], [5, 1]])).tolist() == [3.5, 0.5]
    assert aggregated(CoordinateMedian(), updates_of([[7, 8]])).tolist() == [7.0, 8.0]
    assert aggregated(CoordinateMedian(), updates_of([[7, 8], [8, 9]])).tolist() == [7.5, 8.5]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12))
def test_it_is_the_median_of_every_coordinate(seed: int, count: int) -> None:
    for vectors in (normal(seed, count, 8), whole(seed, count, 8)):
        expected = [statistics.median(column) for column in vectors.astype(float).T.tolist()]
        assert aggregated(CoordinateMedian(), updates_of(vectors)).tolist() == np.float32(expected).tolist()


def test_two_large_values_have_a_middle() -> None:
    huge = float(np.finfo(np.float32).max)
    assert aggregated(CoordinateMedian(), updates_of([[huge], [huge]])).tolist() == [huge]


def test_weights_are_not_looked_at() -> None:
    assert aggregated(CoordinateMedian(), updates_of([[1], [2], [3]], [1, 1, 10**6])).tolist() == [2.0]


def test_less_than_half_may_be_attackers() -> None:
    honest = normal(1, 11, 30)
    result = aggregated(CoordinateMedian(10), updates_of(np.vstack([honest, np.full((10, 30), 1e30, np.float32)])))
    assert (result >= honest.min(axis=0)).all() and (result <= honest.max(axis=0)).all()
    assert CoordinateMedian(10).shortfall(21) == ""
    assert CoordinateMedian(10).shortfall(20) == (
        "the median tolerates f = 10 attackers ('attackers-tolerated') only among 2f + 1 = 21 updates or more, but a "
        "round has 20"
    )


def test_it_reads_its_key() -> None:
    assert CoordinateMedian.of({"attackers-tolerated": 3}) == CoordinateMedian(3)
