"""Bulyan: against its two steps spelt out, by hand, and against the attack it was made for."""

import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.robust import Bulyan, Krum
from strategies.robust.bulyan import mean_around_median, select
from strategies.robust.distances import squared_distances
from tests.strategies.robust.federations import aggregated, normal, rows_of, updates_of, whole


def selected_by_hand(vectors: np.ndarray, tolerated: int) -> list[int]:
    """Take the update whose nearest neighbours among those left are nearest, again and again."""
    doubles, left, selected = vectors.astype(np.float64), list(range(len(vectors))), []
    while len(selected) < len(vectors) - 2 * tolerated:
        neighbours = min(max(1, len(left) - tolerated - 2), len(left) - 1)

        def score(place: int, neighbours: int = neighbours) -> float:
            others = [other for other in left if other != place]
            distances = {other: float(np.square(doubles[place] - doubles[other]).sum()) for other in others}
            return min(sum(distances[other] for other in some) for some in combinations(others, neighbours))

        best = min(left, key=lambda place: (round(score(place), 9), place))
        selected.append(best)
        left.remove(best)
    return sorted(selected)


def around_median_by_hand(column: list[float], cut: int) -> float:
    """The subset whose distances to the median have the smallest sum; of equal ones that of the smaller values."""
    median = statistics.median(column)
    subsets = combinations(sorted(column), len(column) - cut)
    return statistics.fmean(min(subsets, key=lambda some: (sum(abs(value - median) for value in some), sum(some))))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 7))
def test_it_is_the_brute_force(seed: int, count: int) -> None:
    tolerated = 1 if count == 7 else 0
    for vectors in (whole(seed, count, 3), normal(seed, count, 3)):
        selected = selected_by_hand(vectors, tolerated)
        assert select(squared_distances(rows_of(vectors)), tolerated) == selected
        columns = vectors[selected].astype(float).T.tolist()
        expected = [around_median_by_hand(column, 2 * tolerated) for column in columns]
        np.testing.assert_allclose(aggregated(Bulyan(tolerated), updates_of(vectors)), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 11), data=st.data())
def test_the_values_around_the_median_are_the_closest(seed: int, count: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, count - 1))
    for vectors in (whole(seed, count, 4), normal(seed, count, 4)):
        expected = [around_median_by_hand(column, cut) for column in vectors.astype(float).T.tolist()]
        actual = mean_around_median(np.ascontiguousarray(vectors.T), cut)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_without_attackers_it_is_the_mean() -> None:
    vectors = normal(1, 5, 9)
    np.testing.assert_allclose(aggregated(Bulyan(), updates_of(vectors)), vectors.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_by_hand() -> None:
    vectors = np.array([[1.0], [2], [3], [4], [6], [7], [100]])
    # n = 7, f = 1: Krum takes 3 (scores 39, 22, 15, 18, 30, 51, ...), of what is left 4 (35, 21, 17, 21, 35, ...), then
    # 2, which ties with 6 (26, 17, 17, 26, ...), 6, which ties with 7 (25, 1, 1, ...), and 1, which ties with 7.
    assert select(squared_distances(rows_of(vectors)), 1) == [0, 1, 2, 3, 4]
    assert aggregated(Bulyan(1), updates_of(vectors)).tolist() == [3.0]  # the mean of 2, 3 and 4


def test_a_large_value_hidden_in_one_coordinate_is_taken_away() -> None:
    """The paper's attack: as close to the honest as they are to each other, with all the distance in one coordinate."""
    honest = normal(1, 20, 1000)
    attack = np.tile(honest.mean(axis=0), (4, 1))
    attack[:, 0] += 30
    updates = updates_of(np.vstack([attack, honest]))
    assert abs(aggregated(Krum(4), updates)[0]) > 25
    assert abs(aggregated(Bulyan(4), updates)[0]) < 1.5


def test_what_it_asks_for() -> None:
    assert Bulyan(4).shortfall(19) == ""
    assert Bulyan(4).shortfall(18) == (
        "Bulyan tolerates f = 4 attackers ('attackers-tolerated') only among 4f + 3 = 19 updates or more, but a round "
        "has 18"
    )


def test_it_reads_its_key() -> None:
    assert Bulyan.of({"attackers-tolerated": 2}) == Bulyan(2)


@pytest.mark.parametrize("tolerated", [1, 2, 5])
def test_the_selection_grows_by_all_but_twice_the_attackers(tolerated: int) -> None:
    count = 4 * tolerated + 3
    assert len(select(squared_distances(rows_of(normal(2, count, 5))), tolerated)) == count - 2 * tolerated
