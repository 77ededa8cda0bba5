"""Which models are compiled with XLA for their local training."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

layers = keras.layers
ROWS = (
    layers.InputLayer,
    layers.Dense,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.Rescaling,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.PReLU,
    layers.Softmax,
    layers.LayerNormalization,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Concatenate,
)
CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.ZeroPadding2D,
    layers.GroupNormalization,
)


def trains_with_xla(model: keras.Model) -> bool:
    """Say whether a built model's local training is compiled with XLA: dense models everywhere, all others on GPUs.

    XLA needs batches of one size, so short ones are padded and the padding weighs 0. That is right only where every
    layer treats each example by itself and draws no random numbers: not with batch normalisation, dropout or a user's
    own layer, of which nothing is known. Such models train in a plain graph, as do convolutions on the CPU.

    Measured (one thread of an EPYC core, 100 examples in batches of 20, ms of CPU per client, XLA / plain graph with
    batches of fixed size): MLP 784-200-200-10 with SGD 1.56 / 1.99, with Adam 2.16 / 3.38; logistic regression on 8x8
    digits, 30 examples in batches of 5, 0.25 / 0.45. With convolutions XLA takes 20 times as long as the plain graph,
    which has oneDNN's. Compiling takes 0.2 to 0.6 s for each width of batches.
    """
    allowed = (*ROWS, *CONVOLUTIONS) if tf.config.list_logical_devices("GPU") else ROWS
    return all(treats_rows_alone(layer, allowed) for layer in innermost_layers(model))


def innermost_layers(layer: Any) -> list[Any]:
    """Return the layers and operations of Keras's own kinds of model; a subclassed model counts as one layer."""
    if type(layer) is not keras.Sequential and type(layer).__name__ != "Functional":
        return [layer]
    parts = layer.layers if type(layer) is keras.Sequential else layer.operations
    return [inner for part in parts for inner in innermost_layers(part)]


def treats_rows_alone(layer: Any, allowed: tuple[type[keras.Layer], ...]) -> bool:
    """Say whether a layer's results for an example depend on that example alone, and are computed by Keras's code."""
    if type(layer) not in allowed or layer.dtype_policy.name != "float32":
        return False
    called = [getattr(layer, name, None) for name in ("activation", "kernel_regularizer", "bias_regularizer")]
    called += [variable.constraint for variable in layer.variables]
    return (
        getattr(layer, "activity_regularizer", None) is None
        and getattr(layer, "axis", -1) in (-1, [-1], (-1,))
        and all(part is None or part.__module__.startswith("keras.") for part in called)
    )
