"""How a compiled local training is called: at once, or in parts where its steps do not fit into one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tasks.tensors import FlatFunction, aligned_zeros, lent, read_only

Tensors = Sequence[tf.Tensor]
Trained = tuple[list[np.ndarray], np.ndarray]
"""A client's trained weights, read-only, and its sums of losses and of hits over the examples as they were seen."""


class Begins(Protocol):
    """What a local training starts and ends with."""

    def begin(self, *arguments: tf.Tensor) -> None:
        """Assign everything that it starts from: what is given, then the weights."""

    def end(self) -> list[tf.Tensor]:
        """Return the trained weights."""


class Phases:
    """Begin, run and end of a local training: one call, or several where its steps do not fit into one.

    ``given`` and ``batches`` are arrays from `aligned_zeros`, which are written to between the calls: what `begin`
    takes before the weights, and what ``run`` takes before its number of steps. After that it takes the ``terms``.
    """

    def __init__(
        self,
        model: Begins,
        run: Callable[..., tf.Tensor],
        given: Sequence[np.ndarray],
        batches: Sequence[np.ndarray],
        terms: Sequence[tf.TensorSpec],
        weights: Sequence[tf.TensorSpec],
        with_xla: bool,
    ) -> None:
        self._steps = aligned_zeros((), np.int32)
        self._given, self._run_on = ([lent(array) for array in part] for part in (given, (*batches, self._steps)))
        start, read = ([tf.TensorSpec(t.shape, t.dtype) for t in part] for part in (self._given, self._run_on))
        begin, read = [*start, *weights], [*read, *terms]
        split = len(read)
        compiled = tf.function(run, input_signature=read, jit_compile=with_xla, autograph=False)

        def whole(*arguments: tf.Tensor) -> list[tf.Tensor]:
            model.begin(*arguments[split:])
            sums = compiled(*arguments[:split])
            return [sums, *model.end()]

        self._whole = FlatFunction(whole, [*read, *begin])
        self._parts = functools.cache(
            lambda: (FlatFunction(model.begin, begin), FlatFunction(compiled, read), FlatFunction(model.end, []))
        )

    def train(self, weights: Tensors, terms: Tensors, fill: Callable[[], int], steps: int) -> Trained:
        """Train for so many steps; ``fill`` writes the next batches and returns how many they are, 0 at the end."""
        self._steps[...] = filled = fill()
        if filled == steps:
            sums, *trained = self._whole(*self._run_on, *terms, *self._given, *weights)
            return list(map(read_only, trained)), sums.numpy()
        begin, run, end = self._parts()
        begin(*self._given, *weights)
        total: np.ndarray | float = 0.0
        while filled:
            total = total + run(*self._run_on, *terms)[0].numpy()
            self._steps[...] = filled = fill()
        return list(map(read_only, end())), np.asarray(total)


def loop(
    body: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]], steps: tf.Tensor, sums: tuple[int, ...]
) -> tf.Tensor:
    """Run ``body(step, total)`` for the steps in order and return the last total, float64 of the shape ``sums``."""
    first = (tf.constant(0), tf.zeros(sums, tf.float64))
    return tf.while_loop(lambda step, _: step < steps, body, first, parallel_iterations=1)[1]
