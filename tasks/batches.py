"""The batches of local training: their order, and how they get into the arrays that compiled training reads."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tasks.data import Examples, Stream
from tasks.errors import TaskError

NARROWEST = 8
"""Rows of the narrowest padded batch: a dense layer takes as long for one row as for these."""


@dataclass(frozen=True)
class Buffers:
    """Room for some steps: ``x`` float32 [steps, width, *input_shape], ``y`` int32 [steps, width], and ``counts``.

    ``counts`` int32 [steps] says how many rows of a step are examples. The others repeat the last of them: numbers that
    are finite wherever the examples' own are, so that weighting them with 0 really takes them out.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]


class Batches(Protocol):
    """The batches of one local training, in order; ``seen`` counts the examples in those that were filled in."""

    seen: int

    def fill(self, into: Any) -> int:
        """Put the next batches there and return how many they are: as many as fit, or as there are left.

        ``into`` are `Buffers`, or what else the batches are made for.
        """


def batch_width(num_examples: int, batch_size: int) -> int:
    """Return how many rows the batches of so many examples are padded to.

    That is the batch size, or where all examples fit into a quarter of it, that quarter, and so on: little is wasted on
    a client that is smaller than a batch, and there are few widths, each of which has to be compiled.
    """
    width = batch_size
    while (quarter := math.ceil(width / 4)) >= max(num_examples, NARROWEST):
        width = quarter
    return width


def batch_order(num_examples: int, batch_size: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``order`` and ``bounds``, int32, so that batch i is ``order[bounds[i]:bounds[i + 1]]``.

    Every epoch is a fresh permutation and ends with its partial batch; the last epoch may be cut off after ``steps``.
    """
    epochs, bounds = _bounds(num_examples, batch_size, steps)
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(num_examples) for _ in range(epochs)])
    return order[: bounds[-1]].astype(np.int32), bounds


@functools.lru_cache(maxsize=1024)
def _bounds(num_examples: int, batch_size: int, steps: int) -> tuple[int, np.ndarray]:
    """Return how many epochs are begun, and where the batches end, read-only."""
    per_epoch = math.ceil(num_examples / batch_size)
    epochs = math.ceil(steps / per_epoch)
    starts = np.arange(epochs)[:, np.newaxis] * num_examples + np.arange(per_epoch) * batch_size
    bounds = np.append(starts.ravel(), epochs * num_examples)[: steps + 1].astype(np.int32)
    bounds.flags.writeable = False
    return epochs, bounds


@functools.lru_cache(maxsize=128)
def _rows(
    num_examples: int, batch_size: int, steps: int, first: int, most: int, width: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return where in the order the rows of the batches from the ``first`` on lie, and how many of them are examples.

    Int32 [batches, width] and [batches], at most ``most`` batches. Clients of one size have the same.
    """
    bounds = _bounds(num_examples, batch_size, steps)[1][first : first + most + 1]
    counts = np.diff(bounds)
    rows = np.minimum(np.arange(width, dtype=np.int32), counts[:, np.newaxis] - 1)
    return bounds[:-1, np.newaxis] + rows, counts


class ExampleBatches:
    """Batches of examples in memory, in the order that the seed gives."""

    def __init__(self, examples: Examples, batch_size: int, steps: int, seed: int) -> None:
        self._examples = examples
        self._size = len(examples), batch_size, steps
        self._order, _ = batch_order(*self._size, seed)
        self._next = self.seen = 0

    def fill(self, into: Buffers) -> int:
        """See `Batches`."""
        places, counts = _rows(*self._size, self._next, *into.y.shape)
        indices, steps = self._order[places], len(counts)
        np.take(self._examples.x, indices, axis=0, out=into.x[:steps], mode="clip")  # "raise" would copy once more
        np.take(self._examples.y, indices, out=into.y[:steps], mode="clip")
        into.counts[:steps] = counts
        self._next += steps
        self.seen += int(counts.sum())
        return steps


class StreamBatches:
    """The first batches of a stream, checked as they come."""

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        steps: int,
        seed: int,
        input_shape: tuple[int, ...],
        num_classes: int,
    ) -> None:
        epochs = math.ceil(steps / math.ceil(len(stream) / batch_size))
        self._fitting = functools.partial(checked_batch, input_shape=input_shape, num_classes=num_classes)
        self._announced, self._left, self.seen = len(stream), steps, 0
        self._batches: Iterator[Any] = iter(stream.batches(batch_size, seed=seed, epochs=epochs))

    def fill(self, into: Buffers) -> int:
        """See `Batches`; raises what TensorFlow finds in the stream, and `TaskError` where it is too short."""
        steps, width = min(self._left, len(into.counts)), into.y.shape[1]
        for step in range(steps):
            batch = next(self._batches, None)
            if batch is None:
                raise TaskError(ended(self._announced))
            examples = self._fitting(batch)
            count = len(examples)
            if not 0 < count <= width:
                raise TaskError(does_not_fit(f"a batch of {count} of the {self._announced} examples announced"))
            rows = np.minimum(np.arange(width), count - 1)
            into.x[step], into.y[step], into.counts[step] = examples.x[rows], examples.y[rows], count
            self.seen += count
        self._left -= steps
        return steps


def checked_batch(batch: Any, input_shape: tuple[int, ...], num_classes: int) -> Examples:
    """Return a stream's batch as arrays; raise `TaskError` where it does not fit the model."""
    x, y = (part.numpy() for part in batch)
    if x.shape != (len(y), *input_shape):
        found = f"examples of shape {x.shape[1:]}, not {input_shape}"
    elif len(y) and not 0 <= y.min() <= y.max() < num_classes:
        found = f"labels from {y.min()} to {y.max()}, not from 0 to {num_classes - 1}"
    else:
        return Examples(x, y)
    raise TaskError(does_not_fit(found))


def checked_examples(examples: Examples, input_shape: tuple[int, ...], num_classes: int) -> Examples:
    """Return examples in memory as they are trained on; raise `TaskError` where they do not fit the model."""
    if examples.x.shape[1:] != input_shape:
        raise TaskError(
            f"Model and data of different shapes: the model takes inputs of shape {input_shape}, and the client's "
            f"examples have shape {examples.x.shape[1:]}: change model or dataset."
        )
    low, high = int(examples.y.min()), int(examples.y.max())
    if low < 0 or high >= num_classes:
        raise TaskError(
            f"Labels out of range: the model has classes 0 to {num_classes - 1}, and the client's labels go "
            f"from {low} to {high}: correct the labels, or change the model."
        )
    return Examples(np.asarray(examples.x, np.float32), np.asarray(examples.y, np.int32))


def does_not_fit(found: str) -> str:
    """Say that a stream cannot be used."""
    return (
        f"A stream of examples is corrupt, gone or does not fit the model ({found}): check its files, their shapes and "
        "labels."
    )


def ended(announced: int) -> str:
    """Say that a stream was shorter than it said."""
    return f"A stream of examples ended before the {announced} that it announced: rewrite the client's files."
