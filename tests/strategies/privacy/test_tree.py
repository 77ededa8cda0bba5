"""The tree's noise against brute force over all nodes, and against TensorFlow Privacy's queries with restarts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.privacy.tree import TreeNoise
from tests.strategies.privacy.unit_noise import ROOM, coefficients

LENGTHS = range(1, 17)


def all_nodes(rounds: int) -> list[set[int]]:
    """The nodes that so many leaves complete, each as the leaves below it."""
    aligned = ((start, start + 2**level) for level in range(6) for start in range(1, rounds + 1, 2**level))
    return [set(range(start, end)) for start, end in aligned if end <= rounds + 1]


def cover(steps: int, nodes: list[set[int]]) -> frozenset[frozenset[int]]:
    """The fewest nodes that make up the leaves 1 to ``steps``: the largest first, each where nothing lies yet."""
    left, found = set(range(1, steps + 1)), set()
    for node in sorted(nodes, key=len, reverse=True):
        if node <= left:
            left -= node
            found.add(frozenset(node))
    assert not left
    return frozenset(found)


@pytest.mark.parametrize("rounds", LENGTHS)
def test_prefix_sums_have_the_noise_of_the_nodes_that_cover_them(rounds: int) -> None:
    """The covariance of two prefix sums is the number of nodes that they share."""
    prefixes = coefficients(TreeNoise(rounds), range(1, rounds + 1)).cumsum(axis=0)
    assert set(np.unique(prefixes)) <= {0.0, 1.0}
    covers = [cover(steps, all_nodes(rounds)) for steps in range(1, rounds + 1)]
    shared = [[len(one & other) for other in covers] for one in covers]
    assert (prefixes @ prefixes.T).tolist() == shared


@pytest.mark.parametrize("rounds", [*LENGTHS, 100])
def test_the_sensitivity_is_that_of_the_leaf_in_the_most_nodes(rounds: int) -> None:
    nodes = all_nodes(rounds) if rounds < 64 else [*all_nodes(rounds), set(range(1, 65))]
    most = max(sum(leaf in node for node in nodes) for leaf in range(1, rounds + 1))
    assert TreeNoise(rounds).sensitivity ** 2 == pytest.approx(most)


@pytest.mark.parametrize(("rounds", "passes"), [(1, 5), (2, 4), (5, 4), (8, 3), (13, 2)])
def test_with_restarts_it_is_the_residual_query_of_tensorflow_privacy(
    rounds: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "skip_tf_privacy_import", True, raising=False)
    import tensorflow as tf
    from tensorflow_privacy.privacy.dp_query import restart_query, tree_aggregation
    from tensorflow_privacy.privacy.dp_query.tree_aggregation_query import TreeResidualSumQuery

    class Units(tree_aggregation.ValueGenerator):
        def initialize(self) -> tf.Tensor:
            return tf.constant(0)

        def next(self, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.one_hot(state, ROOM), state + 1

    inner = TreeResidualSumQuery(
        tf.TensorSpec([ROOM]), Units(), clip_fn=lambda record, _: record, clip_value=1.0, use_efficient=False
    )
    query = restart_query.RestartQuery(inner, restart_query.PeriodicRoundRestartIndicator(rounds))
    state, theirs = query.initial_global_state(), []
    for _ in range(rounds * passes):
        noised, state, _ = query.get_noised_result(tf.zeros(ROOM), state)
        theirs.append(noised.numpy())
    ours = coefficients(TreeNoise(rounds), range(1, rounds * passes + 1))
    assert np.array_equal(ours @ ours.T, np.array(theirs) @ np.array(theirs).T)


@pytest.mark.parametrize("rounds", LENGTHS)
def test_the_deviation_of_a_rounds_noise(rounds: int) -> None:
    noise = coefficients(TreeNoise(rounds), range(1, 3 * rounds + 1))
    found = [TreeNoise(rounds).deviation(round) for round in range(1, 3 * rounds + 1)]
    assert found == pytest.approx(np.linalg.norm(noise, axis=1).tolist())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 16), st.sets(st.integers(1, 64), min_size=1))
def test_rounds_that_are_left_out_are_empty_leaves(rounds: int, held: set[int]) -> None:
    """Within a pass the prefix sum has one node for each bit of its steps, and of other passes only what stays."""
    order = sorted(held)
    found = dict(zip(order, coefficients(TreeNoise(rounds), order).cumsum(axis=0), strict=True))
    stays, last = np.zeros(ROOM), 0
    for number, prefix in found.items():
        if last and (last - 1) // rounds != (number - 1) // rounds:
            stays = found[last]
        within = prefix - stays
        assert set(np.unique(within)) <= {0.0, 1.0}
        assert within.sum() == bin((number - 1) % rounds + 1).count("1")
        assert not np.any(within * stays)
        last = number


def test_the_state_holds_no_more_than_the_nodes_in_use() -> None:
    tree, state = TreeNoise(16), {}
    for number in range(1, 40):
        _, state = tree.next(number, 3, state, np.random.default_rng(number))
        steps = (number - 1) % 16 + 1
        assert len(state) == 1 + bin(steps).count("1") <= 1 + tree.vectors == 6
        assert all(array.shape == (3,) for name, array in state.items() if name != "round")


def test_noise_is_drawn_of_the_generator_alone() -> None:
    first, second = (TreeNoise(4).next(1, 5, {}, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first[0], np.random.default_rng(3).standard_normal(5))
    assert np.array_equal(first[0], second[0]) and first[0].dtype == np.float64


@pytest.mark.parametrize("again", [7, 6, 1])
def test_a_round_that_has_had_its_noise_gets_none_again(again: int) -> None:
    _, state = TreeNoise(4).next(7, 5, {}, np.random.default_rng(3))
    with pytest.raises(StrategyError, match=f"Round {again} cannot get noise after round 7"):
        TreeNoise(4).next(again, 5, state, np.random.default_rng(3))
