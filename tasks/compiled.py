"""The compiled local training and evaluation of one model.

The whole local training of a client is one call: assign the weights, restore the optimizer's first state, loop over
the steps, return the weights. What differs between clients is an argument. There is one program for each width of
batches (`tasks.batches.batch_width`), because operations on batches of a size that is known when the graph is made cost
less: 1.75 instead of 2.4 ms per client of the MLP, and XLA takes no others. What is minimised beside the loss
(`tasks.objective.Terms`) has programs of its own, so that those without it do not know of it.

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

import keras
import numpy as np
import tensorflow as tf

from tasks.batches import Batches, Buffers
from tasks.objective import Objective, Terms
from tasks.optimizers import FirstState
from tasks.phases import Phases, Tensors, Trained, loop
from tasks.tensors import FlatFunction, KeptTensors, aligned_zeros
from tasks.xla import trains_with_xla

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
        self.trainable_specs = [tf.TensorSpec(v.shape, tf.float32) for v in self._trainable]
        places = {id(weight): place for place, weight in enumerate(model.weights)}
        self._trainable_places = [places[id(variable)] for variable in self._trainable]
        self._first_state = FirstState(optimizer, self._trainable)
        self.kept = KeptTensors()
        self.program = functools.cache(functools.partial(Program, self))
        x, y = tf.TensorSpec((None, *input_shape), tf.float32), tf.TensorSpec((None,), tf.int32)
        self._evaluate = FlatFunction(self._evaluation, [*self.weight_specs, x, y, tf.TensorSpec((), tf.int32)])

    def terms(self, start: Tensors, mu: float, correction: Tensors) -> Terms:
        """Return what is minimised beside the loss: from weights in wire order, and arrays like them or none."""

        def trained(tensors: Tensors) -> list[tf.Tensor]:
            return [tf.cast(tensors[place], tf.float32) for place in self._trainable_places]

        proximal = [tf.constant(mu, tf.float32), *trained(start)] if mu else []
        return Terms(proximal, trained(correction) if correction else [])

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

    def step(self, terms: Terms, x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Take one step, and return the sums of losses and of hits over the batch, float64 [2].

        With a ``mask`` float32 [batch] only the examples where it is 1 count.
        """
        variables = [variable.value for variable in self._trainable]
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=True)
            losses = self.objective.losses(y, outputs)
            value = tf.add_n([self.objective.value(losses, mask), *self.model.losses, *terms.values(variables)])
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


class LocalProgram:
    """The local training of one model from buffers of batches, with the `Terms` that it is for.

    ``buffers`` are what batches are filled into; ``run`` takes their arrays ``batches`` as tensors, the number of
    steps, and the tensors of the terms.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        run: Callable[..., tf.Tensor],
        buffers: object,
        batches: Sequence[np.ndarray],
        proximal: bool,
        corrected: bool,
        with_xla: bool,
    ) -> None:
        self._buffers = buffers
        self._rate = aligned_zeros((), np.float32)
        self._seeds = aligned_zeros((len(compiled.seed_states), 2), np.int64)
        begun = [tf.TensorSpec((), tf.float32), *compiled.trainable_specs] if proximal else []
        terms, self._split = begun + compiled.trainable_specs * corrected, len(begun)
        given = [self._rate, self._seeds]
        self._phases = Phases(compiled, run, given, batches, terms, compiled.weight_specs, with_xla)

    def train(
        self,
        weights: Tensors,
        terms: Terms,
        learning_rate: float,
        seeds: np.ndarray,
        batches: Batches,
        steps: int,
    ) -> Trained:
        """Train one client."""
        self._rate[...], self._seeds[...] = learning_rate, seeds
        return self._phases.train(weights, terms.tensors, lambda: batches.fill(self._buffers), steps)

    def terms_of(self, tensors: Tensors) -> Terms:
        """Return the terms whose tensors these are."""
        return Terms(tensors[: self._split], tensors[self._split :])


class Program(LocalProgram):
    """The local training in batches of up to ``width`` examples.

    Where XLA compiles it, all batches are padded and masked. In the plain graph a full batch has a fixed size, and one
    that is not full is cut to its examples.
    """

    def __init__(self, compiled: CompiledModel, width: int, proximal: bool, corrected: bool) -> None:
        self._compiled = compiled
        self._width = width
        shape = compiled.input_shape
        steps = max(1, min(MAX_STEPS, MAX_BYTES // (4 * width * math.prod(shape))))
        x, y = aligned_zeros((steps, width, *shape), np.float32), aligned_zeros((steps, width), np.int32)
        buffers = Buffers(x, y, aligned_zeros((steps,), np.int32))
        super().__init__(compiled, self._run, buffers, [x, y, buffers.counts], proximal, corrected, compiled.with_xla)

    def _run(self, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, steps: tf.Tensor, *terms: tf.Tensor) -> tf.Tensor:
        one_step = self._padded if self._compiled.with_xla else self._cut
        step = functools.partial(one_step, self.terms_of(terms))

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(x[index], y[index], counts[index])

        return loop(body, steps, (2,))

    def _padded(self, terms: Terms, x: tf.Tensor, y: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        return self._compiled.step(terms, x, y, tf.cast(tf.range(self._width) < count, tf.float32))

    def _cut(self, terms: Terms, x: tf.Tensor, y: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        step = functools.partial(self._compiled.step, terms)
        return tf.cond(count == self._width, lambda: step(x, y), lambda: step(x[:count], y[:count]))


def _sums(*values: tf.Tensor) -> tf.Tensor:
    """Sums over the batch as float64: exact counts, and long sums lose nothing."""
    return tf.stack([tf.reduce_sum(tf.cast(v, tf.float64)) for v in values])
