from itertools import pairwise

import numpy as np
import pytest

from tasks.batches import NARROWEST, Buffers, ExampleBatches, StreamBatches, batch_order, batch_width
from tasks.data import Examples
from tasks.errors import TaskError
from tests.tasks.reference_loop import epochs_of_batches
from tests.tasks.streams import MemoryStream


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


@pytest.mark.parametrize(
    ("n", "batch_size", "width"),
    [
        (1, 1, 1),
        (1, 5, 5),
        (100, 20, 20),
        (6, 20, 20),  # a quarter, 5, is below the narrowest
        (8, 32, 8),
        (9, 32, 32),
        (10, 40, 10),
        (11, 40, 40),
        (1, 500, 8),
        (33, 500, 125),
        (125, 500, 125),
        (126, 500, 500),
    ],
)
def test_widths(n, batch_size, width):
    assert batch_width(n, batch_size) == width


def test_widths_are_few_and_hold_a_batch_without_wasting_much():
    for batch_size in (1, 7, 8, 50, 1000, 10**9):
        widths = {batch_width(n, batch_size) for n in range(1, 3000)}
        assert len(widths) <= 1 + np.log2(max(batch_size / 8, 1)) / 2
        for n in range(1, 3000):
            assert min(n, batch_size) <= batch_width(n, batch_size) <= min(batch_size, max(4 * n, 4 * NARROWEST))


def room(steps: int, width: int, shape: tuple[int, ...] = (2,)) -> Buffers:
    return Buffers(
        np.full((steps, width, *shape), np.nan, np.float32),
        np.full((steps, width), -1, np.int32),
        np.zeros(steps, np.int32),
    )


def numbered(n: int) -> Examples:
    return Examples(np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n, dtype=np.int32))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "fit"), [(10, 4, 2, 4), (10, 4, 2, 6), (3, 8, 2, 1), (8, 8, 1, 9)]
)
def test_batches_are_filled_in_order_and_padded_with_their_last_example(n, batch_size, epochs, fit, stream):
    steps, data, buffers = epochs * -(-n // batch_size), numbered(n), room(fit, batch_size)
    batches = (
        StreamBatches(MemoryStream(data), batch_size, steps, 5, (2,), n)
        if stream
        else ExampleBatches(data, batch_size, steps, 5)
    )
    expected = epochs_of_batches(n, batch_size, epochs, seed=5)
    while filled := batches.fill(buffers):
        assert filled == min(fit, len(expected))
        for step, batch in enumerate(expected[:filled]):
            rows = [*batch, *[batch[-1]] * (batch_size - len(batch))]
            assert buffers.counts[step] == len(batch)
            np.testing.assert_array_equal(buffers.x[step], data.x[rows])
            np.testing.assert_array_equal(buffers.y[step], data.y[rows])
        expected = expected[filled:]
    assert not expected
    assert batches.seen == epochs * n


@pytest.mark.parametrize(
    ("held", "announced", "shape", "classes", "sentence"),
    [
        (10, 10, (3,), 10, r"examples of shape \(2,\), not \(3,\)"),
        (10, 10, (2,), 9, "labels from 0 to 9, not from 0 to 8"),
        (10, 3, (2,), 10, "a batch of 10 of the 3 examples announced"),
        (5, 30, (2,), 10, "ended before the 30 that it announced"),
    ],
)
def test_streams_that_do_not_fit_are_told(held, announced, shape, classes, sentence):
    width = min(announced, 10)
    batches = StreamBatches(MemoryStream(numbered(held), announced), 10, 3, 0, shape, classes)
    with pytest.raises(TaskError, match=sentence):
        batches.fill(room(3, width, shape))
