"""What single examples add to the gradients of dense and convolution layers, from inside a model's forward pass.

`ProbedModel` runs a model and keeps what its trained layers were given and what they put out before their activation.
With the gradients there, `part_of` says how large each example's gradient is and sums them up with factors.
`tasks.per_example` puts the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras
import tensorflow as tf

from tasks.xla import CONVOLUTIONS, ROWS, innermost_layers, treats_rows_alone

layers = keras.layers
_RANDOM = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
)
_TAKEN = (*ROWS, *CONVOLUTIONS, *_RANDOM)


@dataclass(frozen=True)
class Use:
    """One call of a layer: its inputs, and its outputs before the activation."""

    layer: keras.Layer
    inputs: tf.Tensor
    outputs: tf.Tensor


class _Calls:
    """Where the probes of a model put their uses while it runs."""

    def __init__(self) -> None:
        self.tape: tf.GradientTape | None = None
        self.uses: list[Use] = []


class _Probe(keras.Layer):  # type: ignore[misc]
    """A dense or convolution layer with the same weights, which tells of its uses."""

    def __init__(self, layer: keras.Layer, calls: _Calls) -> None:
        super().__init__(name=layer.name)
        self.probed, self._calls = layer, calls

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return what the layer returns."""
        layer = self.probed
        dense = isinstance(layer, layers.Dense)
        outputs = tf.linalg.matmul(x, layer.kernel) if dense else layer.convolution_op(x, layer.kernel)
        outputs = outputs + layer.bias if layer.use_bias else outputs
        if self._calls.tape is not None:
            self._calls.tape.watch(outputs)
            self._calls.uses.append(Use(layer, x, outputs))
        return layer.activation(outputs)


class ProbedModel:
    """A model whose trained layers tell of their uses; see `of`."""

    def __init__(self, model: keras.Model) -> None:
        self._calls = _Calls()
        self._model = keras.models.clone_model(model, clone_function=self._probed, recursive=True)

    @classmethod
    def of(cls, model: keras.Model, input_shape: tuple[int, ...]) -> Self | None:
        """Return the probed model, or None where probes cannot see every trained weight's gradient.

        They see it where all layers are Keras's and treat each example by itself, and all trained weights belong to
        dense or convolution layers that are used once.
        """
        parts = innermost_layers(model)
        if not all(treats_rows_alone(part, _TAKEN) for part in parts) or not all(map(_is_seen, parts)):
            return None
        probed = cls(model)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            _, uses = probed(tf.zeros((2, *input_shape)), tape)
        seen = [id(weight) for use in uses for weight in use.layer.trainable_weights]
        return probed if sorted(seen) == sorted(map(id, model.trainable_variables)) else None

    def __call__(self, x: tf.Tensor, tape: tf.GradientTape) -> tuple[tf.Tensor, list[Use]]:
        """Return the model's outputs in training mode, and its layers' uses, whose outputs the tape watches."""
        self._calls.tape, self._calls.uses = tape, []
        try:
            return self._model(x, training=True), self._calls.uses
        finally:
            self._calls.tape = None

    def _probed(self, layer: keras.Layer) -> keras.Layer:
        return _Probe(layer, self._calls) if layer.trainable_weights else layer


def _is_seen(layer: Any) -> bool:
    """Say whether a layer has no trained weights, or is one whose gradients `part_of` knows."""
    if not getattr(layer, "trainable_weights", None):
        return True
    if type(layer) not in (layers.Dense, layers.Conv2D) or len(layer.trainable_weights) != 1 + layer.use_bias:
        return False
    return type(layer) is layers.Dense or (layer.groups == 1 and layer.data_format == "channels_last")


def part_of(use: Use, deltas: tf.Tensor, microbatches: int) -> Outer | Summed:
    """Return the parts of a layer's gradient, one for each example or microbatch; ``deltas`` are its outputs'."""
    layer, inputs = use.layer, use.inputs
    if isinstance(layer, layers.Conv2D):
        inputs = _patches(layer, inputs)
    rows = microbatches or tf.shape(inputs)[0]
    if len(inputs.shape) == 2 and not microbatches:
        return Outer(inputs, deltas, layer.use_bias)
    inputs = tf.reshape(inputs, (rows, -1, inputs.shape[-1]))
    deltas = tf.reshape(deltas, (rows, -1, deltas.shape[-1]))
    return Summed(tf.matmul(inputs, deltas, transpose_a=True), tf.reduce_sum(deltas, 1), layer.use_bias)


def _patches(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """Return what each output of a convolution sees, [rows, height, width, numbers in the order of the kernel]."""
    sizes, strides, rates = ([1, *pair, 1] for pair in (layer.kernel_size, layer.strides, layer.dilation_rate))
    return tf.image.extract_patches(inputs, sizes, strides, rates, layer.padding.upper())


@dataclass(frozen=True)
class Outer:
    """Parts that are outer products of inputs [parts, in] and gradients at the outputs [parts, out]."""

    inputs: tf.Tensor
    deltas: tf.Tensor
    use_bias: bool

    def squares(self) -> tf.Tensor:
        """Squared norms of the parts, [parts]."""
        inputs = tf.reduce_sum(self.inputs**2, 1) + float(self.use_bias)
        return inputs * tf.reduce_sum(self.deltas**2, 1)

    def sums(self, keeps: tf.Tensor, factors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums of kernel and bias over the parts that are kept, each times its factor."""
        inputs, deltas = (tf.where(keeps[:, tf.newaxis], rows, 0.0) for rows in (self.inputs, self.deltas))
        deltas *= factors[:, tf.newaxis]
        return tf.matmul(inputs, deltas, transpose_a=True), tf.reduce_sum(deltas, 0)


@dataclass(frozen=True)
class Summed:
    """Parts that were made: kernels [parts, in, out] and biases [parts, out]."""

    kernels: tf.Tensor
    biases: tf.Tensor
    use_bias: bool

    def squares(self) -> tf.Tensor:
        """Squared norms of the parts, [parts]."""
        return squares([self.kernels, self.biases] if self.use_bias else [self.kernels])

    def sums(self, keeps: tf.Tensor, factors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums of kernel and bias over the parts that are kept, each times its factor."""
        return weighted_sum(self.kernels, keeps, factors), weighted_sum(self.biases, keeps, factors)


def squares(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the squared norm of each part of some gradients [parts, ...] taken together, [parts]."""
    return tf.add_n([tf.reduce_sum(g * g, list(range(1, len(g.shape)))) for g in gradients])


def weighted_sum(gradient: tf.Tensor, keeps: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Return the sum over the first axis of what is kept, each times its factor."""
    flat = tf.reshape(gradient, (tf.shape(factors)[0], -1))
    kept = tf.where(keeps[:, tf.newaxis], flat, 0.0)
    return tf.reshape(tf.matmul(factors[tf.newaxis], kept), gradient.shape[1:])
