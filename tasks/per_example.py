"""Sums of clipped per-example gradients of a Keras model, at about the cost of the plain gradient.

Two ways to the same numbers. Models that are made of Keras's own layers, with dense and 2-D convolution layers for all
trained weights, take one forward and one backward pass down to what each of those layers puts out before its
activation. With the layer's inputs a and the gradients d there, an example's gradient of a dense kernel is the product
a d^T, of norm |a| |d|, so that its norm is known before it is made, and the clipped sum is one product of matrices
(Goodfellow: "Efficient Per-Example Gradient Computations", 2015; clipped without a second backward pass: Bu, Wang, Zha,
Karypis: "Differentially Private Optimization on Large Model at Small Cost", 2023, the book-keeping trick). Where inputs
have several positions, as the patches under a convolution have, an example's gradient is the sum over them and is made:
it is smaller than the patches. All other models go through `tf.vectorized_map`, one example after the other in meaning.

An example whose gradient is not finite counts as zero, so that no data can carry more than the clipping norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tasks.errors import TaskError
from tasks.objective import Objective
from tasks.probes import ProbedModel, part_of, squares, weighted_sum

Clipped = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
"""The sums in the order of the trained variables, and the losses and hits of each row, [rows]."""


class ClippedSums:
    """Sums the gradients of a built model's losses over a batch, each part clipped to the L2 norm ``clip``.

    A part is an example, or with ``microbatches`` above 0 one of so many equal runs of rows. Raises `TaskError` for
    models in which an example's gradient depends on other examples, or is not that of the loss alone.
    """

    def __init__(
        self, model: keras.Model, input_shape: tuple[int, ...], objective: Objective, clip: float, microbatches: int = 0
    ) -> None:
        _refuse_dependent(model, input_shape)
        self._model, self._objective = model, objective
        self._clip, self._microbatches = clip, microbatches
        self._variables = list(model.trainable_variables)
        self._probed = ProbedModel.of(model, input_shape)

    @property
    def by_layers(self) -> bool:
        """Whether the sums are made layer by layer, the quicker way."""
        return self._probed is not None

    def __call__(self, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, scale: tf.Tensor | float = 1.0) -> Clipped:
        """Return the sums over a batch, and each row's loss and hit.

        ``x`` is [rows, *input_shape] and ``y`` int32 [rows]; rows where ``counts``, bool [rows], is False count as
        nothing. A part's gradient is multiplied by ``scale`` before it is clipped.
        """
        if self._probed is None:
            return self._mapped(x, y, counts, scale)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            outputs, uses = self._probed(x, tape)
            losses = self._objective.losses(y, outputs)
            value = tf.reduce_sum(tf.where(counts, losses, 0.0)) * scale
        deltas = tape.gradient(value, [use.outputs for use in uses], unconnected_gradients="zero")
        parts = [part_of(use, delta, self._microbatches) for use, delta in zip(uses, deltas, strict=True)]
        keeps, factors = self._factors(tf.add_n([part.squares() for part in parts]))
        sums: dict[int, tf.Tensor] = {}
        for use, part in zip(uses, parts, strict=True):
            kernel, bias = part.sums(keeps, factors)
            sums[id(use.layer.kernel)] = tf.reshape(kernel, use.layer.kernel.shape)
            if use.layer.use_bias:
                sums[id(use.layer.bias)] = bias
        return [sums[id(variable)] for variable in self._variables], losses, self._objective.hits(y, outputs)

    def _factors(self, squared: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Say from the squared norms which parts count at all, and what each is multiplied by."""
        keeps = tf.math.is_finite(squared)
        norms = tf.sqrt(tf.where(keeps, squared, 0.0))
        return keeps, tf.where(keeps, self._clip / tf.maximum(norms, self._clip), 0.0)

    def _mapped(self, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor, scale: tf.Tensor | float) -> Clipped:
        shape = (self._microbatches or tf.shape(y)[0], -1)
        variables = [variable.value for variable in self._variables]

        def one(part: tuple[tf.Tensor, ...]) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
            own_x, own_y, own_counts = part
            with tf.GradientTape() as tape:
                outputs = self._model(own_x, training=True)
                losses = self._objective.losses(own_y, outputs)
                value = tf.reduce_sum(tf.where(own_counts, losses, 0.0)) * scale
            gradients = tape.gradient(value, variables, unconnected_gradients="zero")
            return list(map(tf.convert_to_tensor, gradients)), losses, self._objective.hits(own_y, outputs)

        batch = tf.reshape(x, (*shape, *x.shape[1:])), tf.reshape(y, shape), tf.reshape(counts, shape)
        gradients, losses, hits = self._map(one, batch)
        keeps, factors = self._factors(squares(gradients))
        sums = [weighted_sum(gradient, keeps, factors) for gradient in gradients]
        return sums, tf.reshape(losses, [-1]), tf.reshape(hits, [-1])

    def _map(self, one: Callable[..., Any], batch: tuple[tf.Tensor, ...]) -> Any:
        """Apply ``one`` to the parts; one by one where it draws random numbers, which differ from part to part."""
        if not _generators(self._model):
            return tf.vectorized_map(one, batch)
        specs = [tf.TensorSpec(variable.shape, tf.float32) for variable in self._variables]
        rows = tf.TensorSpec((None,), tf.float32)
        return tf.map_fn(one, batch, fn_output_signature=(specs, rows, rows))


def _generators(model: keras.Model) -> list[Any]:
    return [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]


def _refuse_dependent(model: keras.Model, input_shape: tuple[int, ...]) -> None:
    """Raise `TaskError` where clipping gradients one by one would not bound what an example can do."""
    for layer in model._flatten_layers(include_self=True, recursive=True):
        own = [variable for variable in layer._non_trainable_variables if variable.trainable is not None]
        if layer.trainable and own:
            raise TaskError(
                f"DP-SGD needs each example's own gradient, but layer {layer.name!r} ({type(layer).__name__}) keeps "
                "statistics of its examples, which would leave the client without noise: use GroupNormalization or "
                "LayerNormalization, or leave out dp-sgd-clip."
            )
    model(tf.zeros((1, *input_shape)), training=True)
    if len(model.losses) > sum(variable.regularizer is not None for variable in model.trainable_variables):
        raise TaskError(
            "DP-SGD clips the gradients of the data's loss, but the model adds a loss of its own that depends on the "
            "examples (add_loss or an activity regularizer): leave it out; regularizers of weights may stay."
        )
