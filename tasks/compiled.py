"""The compiled local training and evaluation of one model.

The whole local training of a client is one call: assign the weights, restore the optimizer's first state, loop over
the steps, return the weights. What differs between clients is an argument. There is one program for each width of
batches (`tasks.batches.batch_width`), because operations on batches of a size that is known when the graph is made cost
less: 1.75 instead of 2.4 ms per client of the MLP, and XLA takes no others.

Determinism: nothing survives from one call to the next. Weights, optimizer state, learning rate and the states of all
seed generators (dropout) are assigned first, and which program a client gets depends on its own size alone. On the CPU
with one thread (`tasks.training.use_one_thread`) every operation used adds in a fixed order, so equal arguments give
equal bits and TensorFlow's ``enable_op_determinism`` is not needed; on a GPU it is the caller's choice. A user's layer
that draws random numbers must take them from a `keras.random.SeedGenerator` of its own, as Keras's layers do:
TensorFlow's stateful generators cannot be reset here.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tasks.batches import Batches, Buffers
from tasks.objective import Objective
from tasks.optimizers import FirstState
from tasks.tensors import FlatFunction, KeptTensors, aligned_zeros, lent, read_only
from tasks.xla import trains_with_xla

Tensors = Sequence[tf.Tensor]
Trained = tuple[list[np.ndarray], np.ndarray]
"""A client's trained weights, read-only, and its sums of losses and of hits over the examples as they were seen."""
MAX_SEED_STATE = 2**31 - 2  # Keras takes seeds modulo this number
MAX_STEPS, MAX_BYTES = 64, 4 * 2**20
"""What one call trains on at most; longer local trainings take several calls, with the state kept between them."""


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
        self.with_xla = trains_with_xla(model)
        self.lock = threading.Lock()
        self.seed_states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
        self.weight_specs = [tf.TensorSpec(w.shape, w.dtype) for w in model.weights]
        self._trainable = list(model.trainable_variables)
        self._first_state = FirstState(optimizer, self._trainable)
        self.kept = KeptTensors()
        self._programs: dict[int, Program] = {}
        x, y = tf.TensorSpec((None, *input_shape), tf.float32), tf.TensorSpec((None,), tf.int32)
        self._evaluate = FlatFunction(self._evaluation, [*self.weight_specs, x, y, tf.TensorSpec((), tf.int32)])

    def program(self, width: int) -> Program:
        """Return the training in batches of up to so many examples, compiled when it is first asked for."""
        if width not in self._programs:
            self._programs[width] = Program(self, width)
        return self._programs[width]

    def evaluate(self, weights: Tensors, x: tf.Tensor, y: tf.Tensor, batch_size: int) -> np.ndarray:
        """Return the sums of losses, of hits and of examples over the batches of ``batch_size`` in order, float64."""
        return self._evaluate(*weights, x, y, tf.constant(batch_size))[0].numpy()  # type: ignore[no-any-return]

    def seeds(self, seed: int) -> np.ndarray:
        """First states of the seed generators for a client's seed: int64 [generators, 2], no two alike."""
        if not self.seed_states:
            return np.zeros((0, 2), np.int64)
        draws = np.random.default_rng((seed, 1)).integers(MAX_SEED_STATE, size=len(self.seed_states))
        return np.stack([draws, np.zeros_like(draws)], axis=1)

    def begin(self, learning_rate: tf.Tensor, seeds: tf.Tensor, *weights: tf.Tensor) -> None:
        """Assign everything that local training starts from."""
        self._assign(weights)
        self._first_state.restore()
        self.optimizer.learning_rate = learning_rate
        for index, state in enumerate(self.seed_states):
            state.assign(seeds[index])

    def step(self, x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Take one step, and return the sums of losses and of hits over the batch, float64 [2].

        With a ``mask`` float32 [batch] only the examples where it is 1 count.
        """
        variables = [variable.value for variable in self._trainable]
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=True)
            losses = self.objective.losses(y, outputs)
            value = tf.add_n([self.objective.value(losses, mask), *self.model.losses])
            value = self.optimizer.scale_loss(value)
        self.optimizer.apply(tape.gradient(value, variables), self._trainable)
        counted = [losses, self.objective.hits(y, outputs)]
        return _sums(*(counted if mask is None else [values * mask for values in counted]))

    def end(self) -> list[tf.Tensor]:
        """Return the trained weights."""
        self.optimizer.finalize_variable_values(self._trainable)
        return [tf.identity(weight.value) for weight in self.model.weights]

    def _evaluation(self, *arguments: tf.Tensor) -> tf.Tensor:
        *weights, x, y, batch_size = arguments
        self._assign(weights)

        def body(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = slice(step * batch_size, (step + 1) * batch_size)
            outputs = self.model(x[batch], training=False)
            losses = self.objective.losses(y[batch], outputs)
            sums = _sums(losses, self.objective.hits(y[batch], outputs), tf.ones_like(losses))
            return step + 1, total + sums

        return loop(body, (tf.size(y) + batch_size - 1) // batch_size, (3,))

    def _assign(self, weights: Tensors) -> None:
        for variable, value in zip(self.model.weights, weights, strict=True):
            variable.assign(value)


class Begins(Protocol):
    """What a local training starts and ends with."""

    def begin(self, *arguments: tf.Tensor) -> None:
        """Assign everything that it starts from: what is given, then the weights."""

    def end(self) -> list[tf.Tensor]:
        """Return the trained weights."""


class Phases:
    """Begin, run and end of a local training: one call, or several where its steps do not fit into one.

    ``given`` and ``batches`` are arrays from `aligned_zeros`, which are written to between the calls: what `begin`
    takes before the weights, and what ``run`` takes before its number of steps.
    """

    def __init__(
        self,
        model: Begins,
        run: Callable[..., tf.Tensor],
        given: Sequence[np.ndarray],
        batches: Sequence[np.ndarray],
        weights: Sequence[tf.TensorSpec],
        with_xla: bool,
    ) -> None:
        self._steps = aligned_zeros((), np.int32)
        self._given, self._run_on = ([lent(array) for array in part] for part in (given, (*batches, self._steps)))
        start, read = ([tf.TensorSpec(t.shape, t.dtype) for t in part] for part in (self._given, self._run_on))
        begin, split = [*start, *weights], len(read)
        compiled = tf.function(run, input_signature=read, jit_compile=with_xla, autograph=False)

        def whole(*arguments: tf.Tensor) -> list[tf.Tensor]:
            model.begin(*arguments[split:])
            sums = compiled(*arguments[:split])
            return [sums, *model.end()]

        self._whole = FlatFunction(whole, [*read, *begin])
        self._parts = functools.cache(
            lambda: (FlatFunction(model.begin, begin), FlatFunction(compiled, read), FlatFunction(model.end, []))
        )

    def train(self, weights: Tensors, fill: Callable[[], int], steps: int) -> Trained:
        """Train for so many steps; ``fill`` writes the next batches and returns how many they are, 0 at the end."""
        self._steps[...] = filled = fill()
        if filled == steps:
            sums, *trained = self._whole(*self._run_on, *self._given, *weights)
            return list(map(read_only, trained)), sums.numpy()
        begin, run, end = self._parts()
        begin(*self._given, *weights)
        total: np.ndarray | float = 0.0
        while filled:
            total = total + run(*self._run_on)[0].numpy()
            self._steps[...] = filled = fill()
        return list(map(read_only, end())), np.asarray(total)


class Program:
    """The local training of one model in batches of up to ``width`` examples.

    Where XLA compiles it, all batches are padded and masked. In the plain graph a full batch has a fixed size, and one
    that is not full is cut to its examples.
    """

    def __init__(self, compiled: CompiledModel, width: int) -> None:
        self._compiled = compiled
        self._width = width
        shape = compiled.input_shape
        steps = max(1, min(MAX_STEPS, MAX_BYTES // (4 * width * math.prod(shape))))
        x, y = aligned_zeros((steps, width, *shape), np.float32), aligned_zeros((steps, width), np.int32)
        self._buffers = Buffers(x, y, aligned_zeros((steps,), np.int32))
        self._rate = aligned_zeros((), np.float32)
        self._seeds = aligned_zeros((len(compiled.seed_states), 2), np.int64)
        given, batches = [self._rate, self._seeds], [x, y, self._buffers.counts]
        self._phases = Phases(compiled, self._run, given, batches, compiled.weight_specs, compiled.with_xla)

    def train(self, weights: Tensors, learning_rate: float, seeds: np.ndarray, batches: Batches, steps: int) -> Trained:
        """Train one client."""
        self._rate[...], self._seeds[...] = learning_rate, seeds
        return self._phases.train(weights, lambda: batches.fill(self._buffers), steps)

    def _run(self, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        step = self._padded if self._compiled.with_xla else self._cut

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(x[index], y[index], counts[index])

        return loop(body, steps, (2,))

    def _padded(self, x: tf.Tensor, y: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        return self._compiled.step(x, y, tf.cast(tf.range(self._width) < count, tf.float32))

    def _cut(self, x: tf.Tensor, y: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        step = self._compiled.step
        return tf.cond(count == self._width, lambda: step(x, y), lambda: step(x[:count], y[:count]))


def _sums(*values: tf.Tensor) -> tf.Tensor:
    """Sums over the batch as float64: exact counts, and long sums lose nothing."""
    return tf.stack([tf.reduce_sum(tf.cast(v, tf.float64)) for v in values])


def loop(
    body: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]], steps: tf.Tensor, sums: tuple[int, ...]
) -> tf.Tensor:
    """Run ``body(step, total)`` for the steps in order and return the last total, float64 of the shape ``sums``."""
    first = (tf.constant(0), tf.zeros(sums, tf.float64))
    return tf.while_loop(lambda step, _: step < steps, body, first, parallel_iterations=1)[1]
