import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.models import build_model
from tasks.xla import trains_with_xla

layers = keras.layers
USER = "tests.tasks.user_models:"


def stack(*parts: keras.layers.Layer, shape: tuple[int, ...] = (4, 4, 1)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *parts])


class Mine(layers.Dense):
    """A user's layer; what it does to a batch is unknown."""


class MyRegulariser(keras.regularizers.L2):
    """A user's; what it is made of is unknown to XLA."""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("logistic", True),
        ("mlp", True),
        ("mlp-dropout", False),
        ("cnn-small", False),
        ("cnn", False),
        ("cnn-cifar", False),
        (USER + "softmax", True),
        (USER + "sigmoid", True),
        (USER + "batch_norm", False),
        (USER + "subclassed", False),
        ("benchmarks.workloads:mlp", True),
        ("benchmarks.workloads:cnn", False),
    ],
)
def test_dense_models_are_compiled_on_the_cpu_and_others_are_not(model, expected):
    assert trains_with_xla(build_model(model, (28, 28, 1), 2 if "sigmoid" in model else 10, 0)) is expected


@pytest.mark.parametrize("model", ["cnn-small", "cnn", "benchmarks.workloads:cnn"])
def test_convolutions_are_compiled_where_there_is_a_gpu(model, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert trains_with_xla(build_model(model, (28, 28, 1), 10, 0))
    assert not trains_with_xla(build_model("cnn-cifar", (28, 28, 1), 10, 0))  # it has dropout


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(3, "relu", kernel_regularizer="l2", bias_regularizer=keras.regularizers.L1(0.1)),
        lambda: layers.Dense(3, kernel_constraint="max_norm"),
        lambda: layers.LayerNormalization(),
        lambda: layers.Activation(keras.activations.gelu),
        lambda: stack(layers.Flatten(), layers.Dense(3)),
    ],
)
def test_keras_own_parts_are_known(layer):
    assert trains_with_xla(stack(layer(), layers.Flatten(), layers.Dense(2)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.BatchNormalization(),
        lambda: layers.GaussianNoise(0.1),
        lambda: layers.Dense(3, activity_regularizer="l2"),
        lambda: layers.Dense(3, kernel_regularizer=MyRegulariser(0.1)),
        lambda: layers.Dense(3, lambda x: x - tf.reduce_mean(x, 0)),
        lambda: layers.Dense(3, dtype="mixed_float16"),
        lambda: layers.Softmax(axis=0),
        lambda: layers.LayerNormalization(axis=1),
        lambda: layers.Lambda(lambda x: x),
        lambda: Mine(3),
        lambda: stack(layers.Flatten(), layers.Dense(16), layers.Dropout(0.5)),
    ],
)
def test_what_mixes_examples_draws_numbers_or_is_not_keras_own_is_not_compiled(layer):
    assert not trains_with_xla(stack(layer(), layers.Flatten(), layers.Dense(2)))


def test_operations_between_the_layers_of_a_functional_model_count():
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(inputs)
    centred = outputs - keras.ops.mean(outputs, axis=0, keepdims=True)
    assert trains_with_xla(keras.Model(inputs, outputs))
    assert not trains_with_xla(keras.Model(inputs, centred))


def test_padding_does_not_change_a_row_of_any_layer_that_is_allowed():
    model = stack(
        layers.Dense(6, "relu"),
        layers.LayerNormalization(),
        layers.PReLU(),
        layers.Flatten(),
        layers.Dense(2, "softmax"),
    )
    assert trains_with_xla(model)
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    padded = np.concatenate([x, x[-1:].repeat(3, 0)])
    np.testing.assert_allclose(model(padded)[:5], model(x), atol=1e-6)
