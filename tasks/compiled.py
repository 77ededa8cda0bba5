"""The compiled local training and evaluation of one model: a graph is traced once and serves clients of any size.

The whole local training of a client is one call: assign the weights, restore the optimizer's first state, loop over
the steps, return the weights. Everything that differs between clients is an argument with a dynamic shape. The batch
size is no part of the graph, so runs that differ only in it share one.

Determinism: nothing survives from one call to the next. Weights, optimizer state, learning rate and the states of all
seed generators (dropout) are assigned first. On the CPU with one thread (`tasks.training.use_one_thread`) every
operation used adds in a fixed order, so equal arguments give equal bits and TensorFlow's ``enable_op_determinism`` is
not needed; on a GPU it is the caller's choice. A user's layer that draws random numbers must take them from a
`keras.random.SeedGenerator` of its own, as Keras's layers do: TensorFlow's stateful generators cannot be reset here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.objective import Objective
from tasks.optimizers import FirstState

Tensors = list[tf.Tensor]
Read = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
MAX_SEED_STATE = 2**31 - 2  # Keras takes seeds modulo this number


class CompiledModel:
    """One model, optimizer and objective with their compiled functions.

    The model must be built; its weights are overwritten. ``lock`` must be held around a call: the variables are shared.
    ``seed_states`` are the states of the model's seed generators, in their order.
    """

    def __init__(
        self,
        model: keras.Model,
        input_shape: tuple[int, ...],
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
    ) -> None:
        self.model = model
        self.input_shape = input_shape
        self.optimizer = optimizer
        self.objective = objective
        self.lock = threading.Lock()
        self.seed_states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
        self._trainable = list(model.trainable_variables)
        self._first_state = FirstState(optimizer, self._trainable)
        self._compile()

    def _compile(self) -> None:
        weights = [tf.TensorSpec(w.shape, w.dtype) for w in self.model.weights]
        x = tf.TensorSpec((None, *self.input_shape), tf.float32)
        y = tf.TensorSpec((None,), tf.int32)
        vector, scalar = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
        stream = tf.data.DatasetSpec((x, y))
        start = [weights, tf.TensorSpec((), tf.float32), tf.TensorSpec((None, 2), tf.int64)]
        self.train_examples = tf.function(self._train_examples, [*start, x, y, vector, vector])
        self.train_stream = tf.function(self._train_stream, [*start, stream, scalar])
        self.evaluate_examples = tf.function(self._evaluate_examples, [weights, x, y, scalar])
        self.evaluate_stream = tf.function(self._evaluate_stream, [weights, stream, scalar])

    def _train_examples(
        self,
        weights: Tensors,
        learning_rate: tf.Tensor,
        seeds: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        order: tf.Tensor,
        bounds: tf.Tensor,
    ) -> tuple[Tensors, tf.Tensor]:
        """Train on the batches ``order[bounds[i]:bounds[i + 1]]`` of the examples."""

        def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = order[bounds[step] : bounds[step + 1]]
            return tf.gather(x, batch), tf.gather(y, batch)

        return self._train(weights, learning_rate, seeds, read, tf.size(bounds) - 1)

    def _train_stream(
        self, weights: Tensors, learning_rate: tf.Tensor, seeds: tf.Tensor, stream: tf.data.Dataset, steps: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Train on the first ``steps`` batches of the stream."""
        return self._train(weights, learning_rate, seeds, _reader(stream), steps)

    def _train(
        self, weights: Tensors, learning_rate: tf.Tensor, seeds: tf.Tensor, read: Read, steps: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Return the trained weights, and the sums of losses, of hits and of examples seen."""
        self._assign(weights)
        self._first_state.restore()
        self.optimizer.learning_rate = learning_rate
        for index, state in enumerate(self.seed_states):
            state.assign(seeds[index])
        start = [tf.identity(variable.value) for variable in self._trainable]
        sums = self._loop(lambda x, y: self._step(x, y, start), read, steps)
        self.optimizer.finalize_variable_values(self._trainable)
        return [tf.identity(weight.value) for weight in self.model.weights], sums

    def _step(self, x: tf.Tensor, y: tf.Tensor, start: Tensors) -> tf.Tensor:
        variables = [variable.value for variable in self._trainable]
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=True)
            losses = self.objective.losses(y, outputs)
            value = tf.add_n([self.objective.value(losses, variables, start), *self.model.losses])
            value = self.optimizer.scale_loss(value)
        self.optimizer.apply(tape.gradient(value, variables), self._trainable)
        return self._sums(losses, y, outputs)

    def _evaluate_examples(self, weights: Tensors, x: tf.Tensor, y: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
        """Return the sums of losses, of hits and of examples over the batches of ``batch_size`` in order."""

        def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = slice(step * batch_size, (step + 1) * batch_size)
            return x[batch], y[batch]

        return self._evaluate(weights, read, (tf.size(y) + batch_size - 1) // batch_size)

    def _evaluate_stream(self, weights: Tensors, stream: tf.data.Dataset, steps: tf.Tensor) -> tf.Tensor:
        return self._evaluate(weights, _reader(stream), steps)

    def _evaluate(self, weights: Tensors, read: Read, steps: tf.Tensor) -> tf.Tensor:
        self._assign(weights)

        def measure(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            outputs = self.model(x, training=False)
            return self._sums(self.objective.losses(y, outputs), y, outputs)

        return self._loop(measure, read, steps)

    def _assign(self, weights: Tensors) -> None:
        for variable, value in zip(self.model.weights, weights, strict=True):
            variable.assign(value)

    def _sums(self, losses: tf.Tensor, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Sums of losses, of hits and of examples, float64 [3]: exact counts, and long sums lose nothing."""
        hits = self.objective.hits(y, outputs)
        return tf.stack([tf.reduce_sum(tf.cast(v, tf.float64)) for v in (losses, hits, tf.ones_like(losses))])

    @staticmethod
    def _loop(work: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], read: Read, steps: tf.Tensor) -> tf.Tensor:
        """Add up ``work(*read(step))`` over the steps, one after the other."""

        def body(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return step + 1, total + work(*read(step))

        first: Any = (tf.constant(0), tf.zeros(3, tf.float64))
        return tf.while_loop(lambda step, _: step < steps, body, first, parallel_iterations=1)[1]

    def seeds(self, seed: int) -> np.ndarray:
        """First states of the seed generators for a client's seed: int64 [generators, 2], no two alike."""
        draws = np.random.default_rng((seed, 1)).integers(MAX_SEED_STATE, size=len(self.seed_states))
        return np.stack([draws, np.zeros_like(draws)], axis=1)


def _reader(stream: tf.data.Dataset) -> Read:
    iterator = iter(stream)
    return lambda _: iterator.get_next()
