"""The weighted mean: two clients by hand, packed or not, and what it guarantees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.aggregators import Guarantees, LinearFold, Property, WeightedMean
from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.updates import PartialSum, Update

A = Update("a", np.array([1, 2, 3], dtype=np.float32), 1)
B = Update("b", np.array([5, -2, 0.5], dtype=np.float32), 3)


def packed(rule: WeightedMean, *updates: Update) -> PartialSum:
    total = FixedPointSum(3)
    for update in updates:
        total.add(update.delta, rule.weight_of(update))
    return PartialSum(total, {update.client: rule.weight_of(update) for update in updates}, {})


@pytest.mark.parametrize(("weighting", "expected"), [("examples", [4.0, -1.0, 1.125]), ("uniform", [3.0, 0.0, 1.75])])
def test_two_clients_by_hand_alone_or_packed(weighting: str, expected: list[float]) -> None:
    rule = WeightedMean(weighting)
    alone, together, mixed = rule.start(3), rule.start(3), rule.start(3)
    alone.add(B)
    alone.add(A)
    together.merge(packed(rule, A, B))
    mixed.merge(packed(rule, B))
    mixed.add(A)
    for fold in (alone, together, mixed):
        assert fold.result().tolist() == expected
        assert fold.result().dtype == np.float32


def test_a_fold_shows_its_exact_sum() -> None:
    fold = WeightedMean().start(3)
    assert isinstance(fold, LinearFold)
    fold.add(B)
    assert fold.total.divided_by(1.0).tolist() == [15.0, -6.0, 1.5]


def test_what_it_guarantees() -> None:
    assert WeightedMean("examples").guarantees == Guarantees(gives=frozenset({Property.LINEAR, Property.NODE_SUMS}))
    assert WeightedMean("uniform").guarantees.gives == {Property.LINEAR, Property.NODE_SUMS, Property.EQUAL_WEIGHTS}


def test_under_uniform_weighting_a_packed_client_cannot_count_more() -> None:
    fold = WeightedMean("uniform").start(3)
    with pytest.raises(LayoutError, match="weight 1") as caught:
        fold.merge(packed(WeightedMean("examples"), B))
    assert caught.value.reason == "weight"
    fold.add(A)
    assert fold.result().tolist() == [1, 2, 3]


def test_unknown_weightings_are_refused() -> None:
    with pytest.raises(StrategyError, match="'weighting' is 'size', but must be one of \\['examples', 'uniform'\\]"):
        WeightedMean("size")


def test_the_mean_of_no_updates_is_refused() -> None:
    with pytest.raises(ValueError, match="no updates"):
        WeightedMean().start(3).result()


finite = st.floats(-10, 10, width=32)


@given(
    st.lists(st.tuples(st.lists(finite, min_size=3, max_size=3), st.integers(1, 500)), min_size=1, max_size=7),
    st.sampled_from(["examples", "uniform"]),
    st.data(),
)
def test_any_packing_in_any_order_gives_the_same_bits(
    clients: list[tuple[list[float], int]], weighting: str, data: st.DataObject
) -> None:
    rule = WeightedMean(weighting)
    updates = [Update(str(i), np.array(delta, dtype=np.float32), size) for i, (delta, size) in enumerate(clients)]
    alone, mixed = rule.start(3), rule.start(3)
    for update in updates:
        alone.add(update)
    remaining = list(data.draw(st.permutations(updates)))
    while remaining:
        count = data.draw(st.integers(1, len(remaining)))
        message, remaining = remaining[:count], remaining[count:]
        if count == 1:
            mixed.add(message[0])
        else:
            mixed.merge(packed(rule, *message))
    assert mixed.result().tobytes() == alone.result().tobytes()
