"""The compiled local training of one client with example-level differential privacy.

As in `tasks.compiled`, with another step: the gradient is the noisy sum of clipped ones (`tasks.per_example`), divided
by the expected batch size. What does not depend on the data, regularizers of weights and the terms of an objective, is
added to it as it is. The optimizer is any: it only sees what is private already (DP-SGD, DP-Adam, ...).

Noise comes in with the batches. XLA on the CPU takes 450 ns for a normal number, TensorFlow 16, NumPy 8.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf

from tasks.compiled import MAX_BYTES, MAX_STEPS, CompiledModel, LocalProgram
from tasks.dp_sgd import DpSgd, NoisyBuffers
from tasks.objective import Terms
from tasks.per_example import ClippedSums
from tasks.phases import loop
from tasks.tensors import aligned_zeros


class PrivateModel:
    """One model with its private step; use it under the lock of the `CompiledModel`, whose weights and state it uses.

    Raises `TaskError` for models that DP-SGD cannot train.
    """

    def __init__(self, compiled: CompiledModel, dp_sgd: DpSgd) -> None:
        self.compiled = compiled
        self.dp_sgd = dp_sgd
        self.clipped = ClippedSums(
            compiled.model, compiled.input_shape, compiled.objective, dp_sgd.clip, dp_sgd.microbatches
        )
        self.trainable = list(compiled.model.trainable_variables)
        self.sizes = [math.prod(variable.shape) for variable in self.trainable]
        self.program = functools.cache(functools.partial(PrivateProgram, self))

    def step(self, terms: Terms, x: tf.Tensor, y: tf.Tensor, noise: tf.Tensor, averaged: tf.Tensor) -> tf.Tensor:
        """Take one step, and return the sums of losses and of hits over the batch, float64 [2]."""
        counts, optimizer = y >= 0, self.compiled.optimizer
        scale, divisor = tf.unstack(averaged)
        sums, losses, hits = self.clipped(x, tf.maximum(y, 0), counts, scale)
        drawn = tf.split(noise * self.dp_sgd.noise, self.sizes)
        noisy = [(total + tf.reshape(own, total.shape)) / divisor for total, own in zip(sums, drawn, strict=True)]
        others = self._gradients_of_terms(terms)
        gradients = [one if other is None else one + other for one, other in zip(noisy, others, strict=True)]
        optimizer.apply([optimizer.scale_loss(gradient) for gradient in gradients], self.trainable)
        counted = [tf.where(counts, values, 0.0) for values in (losses, hits)]
        return tf.stack([tf.reduce_sum(tf.cast(values, tf.float64)) for values in counted])

    def _gradients_of_terms(self, terms: Terms) -> list[tf.Tensor | None]:
        variables = [variable.value for variable in self.trainable]
        with tf.GradientTape() as tape:
            values = [*self.compiled.model.losses, *terms.values(variables)]
            total = tf.add_n(values) if values else None
        return [None] * len(variables) if total is None else list(tape.gradient(total, variables))


class PrivateProgram(LocalProgram):
    """The private local training in batches of up to ``rows`` rows."""

    def __init__(self, model: PrivateModel, rows: int, proximal: bool, corrected: bool) -> None:
        compiled, self._model = model.compiled, model
        shape, numbers = compiled.input_shape, sum(model.sizes)
        steps = max(1, min(MAX_STEPS, MAX_BYTES // (4 * (rows * math.prod(shape) + numbers))))
        x, y = aligned_zeros((steps, rows, *shape), np.float32), aligned_zeros((steps, rows), np.int32)
        noise, averaged = aligned_zeros((steps, numbers), np.float32), aligned_zeros((2,), np.float32)
        buffers, batches = NoisyBuffers(x, y, noise, averaged), [x, y, noise, averaged]
        self._with_xla = compiled.with_xla and model.clipped.by_layers
        super().__init__(compiled, self._run, buffers, batches, proximal, corrected, self._with_xla)

    def _run(
        self, x: tf.Tensor, y: tf.Tensor, noise: tf.Tensor, averaged: tf.Tensor, steps: tf.Tensor, *terms: tf.Tensor
    ) -> tf.Tensor:
        own, parts = self.terms_of(terms), max(1, self._model.dp_sgd.microbatches)

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = None if self._with_xla else _rows(y[index], parts)
            own_x, own_y = (_part_by_part(batch[index, :rows], parts) for batch in (x, y))
            return index + 1, total + self._model.step(own, own_x, own_y, noise[index], averaged)

        return loop(body, steps, (2,))


def _rows(y: tf.Tensor, parts: int) -> tf.Tensor:
    """Return how many rows hold all examples of a step, one turn of the parts at least; others are not computed."""
    last = tf.reduce_max(tf.where(y >= 0, tf.range(tf.size(y)), 0))
    return (last // parts + 1) * parts


def _part_by_part(rows: tf.Tensor, parts: int) -> tf.Tensor:
    """Put rows of which the parts take turns in the order of the parts, as gradients want them."""
    if parts == 1:
        return rows
    others = list(range(2, len(rows.shape) + 1))
    turns = tf.reshape(rows, (-1, parts, *rows.shape[1:]))
    return tf.reshape(tf.transpose(turns, [1, 0, *others]), (-1, *rows.shape[1:]))
