"""Krum and Multi-Krum: against all subsets of neighbours, ties by client, and colluding attackers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.robust import Krum
from strategies.robust.krum import krum_scores
from tests.strategies.robust.federations import aggregated, normal, updates_of, whole


def scores(vectors: np.ndarray, tolerated: int) -> list[float]:
    """The paper's definition: the smallest sum of squared distances to any n - f - 2 of the others."""
    doubles, count = vectors.astype(np.float64), len(vectors)
    every = [[float(np.square(one - other).sum()) for other in doubles] for one in doubles]
    return [
        min(
            sum(every[place][other] for other in neighbours)
            for neighbours in combinations([other for other in range(count) if other != place], count - tolerated - 2)
        )
        for place in range(count)
    ]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 7), data=st.data())
def test_it_is_the_brute_force(seed: int, count: int, data: st.DataObject) -> None:
    tolerated = data.draw(st.integers(0, (count - 3) // 2))
    selected = data.draw(st.integers(1, count - tolerated))
    for vectors in (whole(seed, count, 4), normal(seed, count, 4)):
        of_each = scores(vectors, tolerated)
        order = sorted(range(count), key=lambda place: (round(of_each[place], 9), place))
        updates = updates_of(vectors)
        assert aggregated(Krum(tolerated), updates).tobytes() == vectors[order[0]].tobytes()
        expected = vectors[order[:selected]].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(aggregated(Krum(tolerated, selected), updates), expected, rtol=1e-6, atol=1e-7)


def test_by_hand_on_a_line() -> None:
    # With n - f - 2 = 2 neighbours: 0: 1 + 4, 1: 1 + 1, 2: 1 + 4, 4: 4 + 9, 100: 9216 + 9604
    squared = np.square(np.subtract.outer([0.0, 1, 2, 4, 100], [0.0, 1, 2, 4, 100]))
    assert krum_scores(squared, 1).tolist() == [5, 2, 5, 13, 18820]
    updates = updates_of([[0], [1], [2], [4], [100]])
    assert aggregated(Krum(1), updates).tolist() == [1.0]
    assert aggregated(Krum(1, selected=3), updates).tolist() == [1.0]
    assert aggregated(Krum(1, selected=0), updates).tolist() == [1.75]  # all but one


def test_of_scores_that_tie_the_smaller_id_is_taken() -> None:
    updates = updates_of([[1, 0], [-1, 0], [0, 1], [0, -1]])
    assert aggregated(Krum(), updates).tolist() == [1.0, 0.0]
    assert aggregated(Krum(), updates[1:]).tolist() == [-1.0, 0.0]


def test_an_update_is_no_neighbour_of_itself_even_with_a_twin() -> None:
    vectors = np.array([[5], [5], [5], [0], [1], [2], [3.0]])
    assert krum_scores(np.square(vectors - vectors.T), 2).tolist() == scores(vectors, 2)


def test_selected_updates_may_be_weighed() -> None:
    updates = updates_of([[0], [1], [2], [4], [100]], [1, 1, 6, 1, 1000])
    assert aggregated(Krum(1, selected=3, weighting="examples"), updates).tolist() == [13 / 8]


@pytest.mark.parametrize("selected", [1, 0])
def test_attackers_far_away_or_side_by_side_are_not_selected(selected: int) -> None:
    honest = normal(1, 16, 50)
    for attack in (np.full((4, 50), 1e18, np.float32), np.full((4, 50), 3.0, np.float32), normal(2, 4, 50, 30.0)):
        result = aggregated(Krum(4, selected), updates_of(np.vstack([honest, attack])))
        assert np.linalg.norm(result - honest.mean(axis=0)) < 1.5 * np.linalg.norm(honest, axis=1).max()
        expected = honest.mean(axis=0) if selected == 0 else honest[np.abs(honest - result).sum(axis=1).argmin()]
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_what_it_asks_for() -> None:
    assert Krum(4).shortfall(11) == Krum(4, selected=7).shortfall(11) == Krum(4, selected=0).shortfall(11) == ""
    assert Krum(4).shortfall(10) == (
        "Krum tolerates f = 4 attackers ('attackers-tolerated') only among 2f + 3 = 11 updates or more, but a round "
        "has 10"
    )
    assert Krum(4, selected=8).shortfall(11) == (
        "Multi-Krum is to select 8 updates ('krum-selected'), but of the 11 of a round only 7 are honest, with "
        "'attackers-tolerated' 4"
    )
    with pytest.raises(StrategyError, match="'krum-selected' is -1, but must be 0"):
        Krum(selected=-1)


def test_it_reads_its_keys() -> None:
    keys = {"attackers-tolerated": 2, "krum-selected": 5}
    assert Krum.one(keys) == Krum(2, 1)
    assert Krum.several({**keys, "weighting": "examples"}) == Krum(2, 5, "examples")
    assert Krum.several({}) == Krum(0, 0)
