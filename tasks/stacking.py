"""Models of several clients in one: each dense layer holds one kernel and one bias for every client of a group.

The group's batches are rows of one batch, client after client. Layers without weights treat each row by itself, so
they stay as they are; dense layers become one product of matrices for each client (`StackedDense`).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tasks.xla import innermost_layers, trains_with_xla

GROUP = 8
"""Clients in a group, always: a program for another number could give other bits."""
MOST_PARAMETERS, WIDEST = 4096, 32
_LINEAR = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)  # of a stack: the sum of its parts'
_ELEMENTWISE = ("SGD", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta", "Ftrl", "Lion")


def trains_stacked(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> bool:
    """Say whether clients of a built model train in groups: tiny dense models on the CPU.

    That is in batches of up to `WIDEST`, and then also for a client that trains alone, so that nobody's bits depend on
    who else trains: it takes 1.4 to 3 times as long alone, and three or four in a group take no longer than one by one.

    Measured (one thread of an EPYC core, 30 examples in batches of 5, SGD, ms of CPU per client, one by one / in full
    groups): logistic regression on 8x8 digits (650 parameters) 0.28 / 0.09, dense 64-32-10 (2410) 0.33 / 0.11, logistic
    regression on MNIST (7850) 0.38 / 0.20, but 1.9 alone; MLP 784-200-200-10 1.05 / 1.12. Thirty steps of the first in
    batches of 32 0.54 / 0.29, sixteen in batches of 128 0.67 / 0.62. Groups of 4 gain less (0.12 for the first), groups
    of 16 no more (0.08), and convolutions nothing.
    """
    weighted = [layer for layer in innermost_layers(model) if layer.weights]
    return (
        not tf.config.list_logical_devices("GPU")
        and trains_with_xla(model)
        and model.count_params() <= MOST_PARAMETERS
        and all(map(_stackable, weighted))
        and sum(len(layer.weights) for layer in weighted) == len(model.weights)  # no layer is in two nested models
        and _goes_by_element(optimizer)
    )


def _stackable(layer: keras.Layer) -> bool:
    regularizers = (getattr(layer, "kernel_regularizer", None), getattr(layer, "bias_regularizer", None))
    return (
        type(layer) is keras.layers.Dense
        and all(regularizer is None or type(regularizer) in _LINEAR for regularizer in regularizers)
        and all(variable.constraint is None for variable in layer.variables)
    )


def _goes_by_element(optimizer: keras.optimizers.Optimizer) -> bool:
    """Say whether a number's step depends on that number's gradients alone, and on how many steps there were."""
    return (
        type(optimizer).__name__ in _ELEMENTWISE
        and type(optimizer).__module__.startswith("keras.")
        and optimizer.clipnorm is None
        and optimizer.global_clipnorm is None
        and not optimizer.use_ema
        and not optimizer.gradient_accumulation_steps
    )


class StackedDense(keras.Layer):  # type: ignore[misc]
    """`keras.layers.Dense` for a group: kernels [GROUP, inputs, units], biases [GROUP, 1, units]; same names."""

    def __init__(self, dense: keras.layers.Dense) -> None:
        super().__init__(name=dense.name, trainable=dense.trainable)
        self.units, self.activation, self.use_bias = dense.units, dense.activation, dense.use_bias
        self.kernel_regularizer, self.bias_regularizer = dense.kernel_regularizer, dense.bias_regularizer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights; what they hold is of no matter."""
        kernel, bias = (GROUP, input_shape[-1], self.units), (GROUP, 1, self.units)
        self.kernel = self.add_weight(shape=kernel, name="kernel", regularizer=self.kernel_regularizer)
        if self.use_bias:
            self.bias = self.add_weight(shape=bias, name="bias", regularizer=self.bias_regularizer)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map [GROUP * rows, ..., inputs] to [GROUP * rows, ..., units], the rows of each client by its weights."""
        outputs = tf.matmul(tf.reshape(x, (GROUP, -1, x.shape[-1])), self.kernel)
        if self.use_bias:
            outputs = tf.add(outputs, self.bias)  # keras.ops.add takes biases [GROUP, 1, 1] for one of GROUP channels
        return self.activation(tf.reshape(outputs, (-1, *x.shape[1:-1], self.units)))


def stacked(model: keras.Model) -> keras.Model:
    """Return the model of a group, with its weights in the same order."""

    def clone(layer: Any) -> Any:
        return StackedDense(layer) if type(layer) is keras.layers.Dense else type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone, recursive=True)
