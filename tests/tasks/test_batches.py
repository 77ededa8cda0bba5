from itertools import pairwise

import numpy as np
import pytest

from tasks.batches import batch_order
from tests.tasks.reference_loop import epochs_of_batches


def cut(order: np.ndarray, bounds: np.ndarray) -> list[np.ndarray]:
    return [order[a:b] for a, b in pairwise(bounds)]


@pytest.mark.parametrize(("n", "batch_size", "epochs"), [(1, 5, 3), (10, 5, 1), (11, 5, 2), (7, 100, 2), (33, 1, 1)])
def test_epochs_are_permutations_with_the_last_partial_batch(n, batch_size, epochs):
    steps = epochs * -(-n // batch_size)
    batches = cut(*batch_order(n, batch_size, steps, seed=3))
    expected = epochs_of_batches(n, batch_size, epochs, seed=3)
    assert len(batches) == len(expected) == steps
    for one, two in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(one, two)
    for epoch in range(epochs):
        seen = np.concatenate(batches[epoch * steps // epochs : (epoch + 1) * steps // epochs])
        np.testing.assert_array_equal(np.sort(seen), np.arange(n))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_steps_go_on_through_epochs_and_stop_exactly(steps):
    batches = cut(*batch_order(7, 3, steps, seed=0))
    assert [len(b) for b in batches] == [3, 3, 1, 3, 3, 1, 3][:steps]
    for one, two in zip(batches, epochs_of_batches(7, 3, 3, seed=0)[:steps], strict=True):
        np.testing.assert_array_equal(one, two)


def test_epochs_differ_from_each_other_and_between_seeds():
    order, _ = batch_order(50, 50, 2, seed=1)
    assert not np.array_equal(order[:50], order[50:])
    assert not np.array_equal(order, batch_order(50, 50, 2, seed=2)[0])


def test_indices_are_int32():
    assert {a.dtype for a in batch_order(5, 2, 3, seed=2**63 - 1)} == {np.dtype(np.int32)}
