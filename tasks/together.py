"""The local training of several clients at a time: stacked weights, one step of all of them together.

A tiny model spends its time on calls and on starting operations, and these are paid once for a group of `GROUP`
clients (`tasks.stacking` says for which models). The rest is as in `tasks.compiled`: one call trains, one program for
each width of batches.

Determinism: a group always has as many places, and no operation mixes them. So a client gets the same bits in any
place, beside any others, and alone. A client that has done its steps, and a place without a client, has batches of 0
examples from then on: its step is computed like the others' and not taken.

A proximal term pulls each client of a group to where all of them began. Corrections of the gradient are each client's
own, and whoever has one trains alone in the model's own program.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tasks.batches import Batches, Buffers
from tasks.compiled import MAX_BYTES, MAX_STEPS, CompiledModel
from tasks.objective import Terms
from tasks.optimizers import FirstState
from tasks.phases import Phases, Tensors, Trained, loop
from tasks.stacking import GROUP, stacked
from tasks.tensors import aligned_zeros


@dataclass(frozen=True)
class Job:
    """What one client has to do: so many steps, over batches of up to ``width`` examples.

    ``seeds`` are the first states of the model's seed generators, of which stacked models have none.
    """

    batches: Batches
    steps: int
    width: int
    seeds: np.ndarray


def groups(jobs: Sequence[Job]) -> Iterator[list[int]]:
    """Return who trains together, as places in ``jobs``: clients of one width, and of like numbers of steps."""
    alike: dict[int, list[int]] = defaultdict(list)
    for place in sorted(range(len(jobs)), key=lambda place: -jobs[place].steps):
        alike[jobs[place].width].append(place)
    for places in alike.values():
        yield from (places[start : start + GROUP] for start in range(0, len(places), GROUP))


class StackedModel:
    """A group's model and optimizer, with their compiled functions; use them under the lock of the model's own."""

    def __init__(self, compiled: CompiledModel) -> None:
        optimizer = compiled.optimizer
        self.input_shape = compiled.input_shape
        self.weight_specs = compiled.weight_specs
        self.trainable_specs = compiled.trainable_specs
        self._objective = compiled.objective
        self._model = stacked(compiled.model)
        self._trainable = list(self._model.trainable_variables)
        self._optimizer = type(optimizer).from_config(optimizer.get_config())
        self._first_state = FirstState(self._optimizer, self._trainable)
        self.program = functools.cache(functools.partial(StackedProgram, self))

    def train(self, weights: Tensors, terms: Terms, learning_rate: float, jobs: Sequence[Job]) -> list[Trained]:
        """Train up to `GROUP` clients of one width; the ``terms`` may be proximal alone."""
        program = self.program(jobs[0].width, bool(terms.proximal))
        arrays, sums = program.train(weights, terms, learning_rate, jobs)
        shapes = [tuple(spec.shape) for spec in self.weight_specs]
        return [
            ([array[place].reshape(shape) for array, shape in zip(arrays, shapes, strict=True)], sums[place])
            for place in range(len(jobs))
        ]

    def begin(self, learning_rate: tf.Tensor, *weights: tf.Tensor) -> None:
        """Assign everything that local training starts from, the same to all."""
        for variable, weight in zip(self._model.weights, weights, strict=True):
            variable.assign(tf.broadcast_to(weight, variable.shape))
        self._first_state.restore()
        self._optimizer.learning_rate = learning_rate

    def step(self, terms: Terms, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Take one step with x [GROUP, width, *input_shape], y [GROUP, width] of which ``counts`` [GROUP] are examples.

        Return each client's sums of losses and of hits, float64 [GROUP, 2].
        """
        variables, (_, width) = [variable.value for variable in self._trainable], y.shape
        before = [tf.identity(variable) for variable in variables]
        labels, mask = tf.reshape(y, [-1]), tf.range(width) < counts[:, tf.newaxis]

        def counted(values: tf.Tensor) -> tf.Tensor:
            return tf.where(mask, tf.reshape(values, mask.shape), 0.0)

        with tf.GradientTape() as tape:
            outputs = self._model(tf.reshape(x, (-1, *self.input_shape)), training=True)
            losses = counted(self._objective.losses(labels, outputs))
            means = tf.reduce_sum(losses, 1) / tf.cast(tf.maximum(counts, 1), tf.float32)
            value = tf.add_n([tf.reduce_sum(means), *self._model.losses, *terms.values(variables)])
            value = self._optimizer.scale_loss(value)
        self._optimizer.apply(tape.gradient(value, variables), self._trainable)
        goes_on = tf.reshape(counts > 0, (GROUP, 1, 1))
        for variable, old in zip(variables, before, strict=True):
            variable.assign(tf.where(goes_on, variable, old))
        sums = [losses, counted(self._objective.hits(labels, outputs))]
        return tf.stack([tf.reduce_sum(tf.cast(values, tf.float64), 1) for values in sums], 1)

    def end(self) -> list[tf.Tensor]:
        """Return the trained weights, stacked."""
        return [tf.identity(weight.value) for weight in self._model.weights]


class StackedProgram:
    """The local training of a group in batches of up to ``width`` examples."""

    def __init__(self, model: StackedModel, width: int, proximal: bool) -> None:
        self._model = model
        shape = model.input_shape
        steps = max(1, min(MAX_STEPS, MAX_BYTES // (4 * GROUP * width * math.prod(shape))))
        x, y = aligned_zeros((steps, GROUP, width, *shape), np.float32), aligned_zeros((steps, GROUP, width), np.int32)
        self._counts = aligned_zeros((steps, GROUP), np.int32)
        self._places = [Buffers(x[:, place], y[:, place], self._counts[:, place]) for place in range(GROUP)]
        self._rate = aligned_zeros((), np.float32)
        terms = [tf.TensorSpec((), tf.float32), *model.trainable_specs] if proximal else []
        batches = [x, y, self._counts]
        self._phases = Phases(model, self._run, [self._rate], batches, terms, model.weight_specs, with_xla=True)

    def train(self, weights: Tensors, terms: Terms, learning_rate: float, jobs: Sequence[Job]) -> Trained:
        """Return the stacked weights, and the sums of losses and of hits of each place, [GROUP, 2]."""
        self._rate[...] = learning_rate
        return self._phases.train(weights, terms.tensors, lambda: self._fill(jobs), max(job.steps for job in jobs))

    def _fill(self, jobs: Sequence[Job]) -> int:
        """Put the next batches of all there and return how many steps they are; who has none left has counts of 0."""
        self._counts[...] = 0
        return max(job.batches.fill(place) for job, place in zip(jobs, self._places, strict=False))

    def _run(self, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, steps: tf.Tensor, *proximal: tf.Tensor) -> tf.Tensor:
        step = functools.partial(self._model.step, Terms(proximal))

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(x[index], y[index], counts[index])

        return loop(body, steps, (GROUP, 2))
