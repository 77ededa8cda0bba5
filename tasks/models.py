"""Keras models by name: the ones that papers and tutorials use, and the user's own ``module:function``.

`mlp` (the "2NN") and `cnn` are the models of McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data" (2017), section 3: 199,210 and 1,663,370 parameters on 28x28 images of 10 classes.

All of our own models return logits and have float32 weights. Their layers have fixed names and their initial values
come from the seed alone, so every process builds the same model, name by name and bit by bit.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tasks.errors import TaskError, did_you_mean
from tasks.user_code import is_reference, load_function

Shape = tuple[int, ...]


class _Layers:
    """Makes named layers whose initial values and dropout masks are drawn from one seed, in the order of creation."""

    def __init__(self, seed: int) -> None:
        self._seeds = np.random.default_rng(seed)

    def _seed(self) -> int:
        return int(self._seeds.integers(2**31 - 1))

    def dense(self, units: int, name: str, activation: str | None = "relu") -> keras.Layer:
        initializer = keras.initializers.GlorotUniform(seed=self._seed())
        return keras.layers.Dense(units, activation, kernel_initializer=initializer, name=name)

    def conv(self, filters: int, size: int, name: str, padding: str = "valid") -> keras.Layer:
        initializer = keras.initializers.GlorotUniform(seed=self._seed())
        return keras.layers.Conv2D(
            filters, size, padding=padding, activation="relu", kernel_initializer=initializer, name=name
        )

    def dropout(self, rate: float, name: str) -> keras.Layer:
        return keras.layers.Dropout(rate, seed=self._seed(), name=name)


def _logistic(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    """Logistic regression, from zeros (the loss is convex); two classes need one logit only."""
    outputs = 1 if num_classes == 2 else num_classes
    return [keras.layers.Flatten(), keras.layers.Dense(outputs, kernel_initializer="zeros", name="logits")]


def _mlp(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    return [
        keras.layers.Flatten(),
        layers.dense(200, "dense_1"),
        layers.dense(200, "dense_2"),
        layers.dense(num_classes, "logits", None),
    ]


def _mlp_dropout(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    return [
        keras.layers.Flatten(),
        layers.dense(128, "dense_1"),
        layers.dropout(0.2, "dropout_1"),
        layers.dense(num_classes, "logits", None),
    ]


def _cnn_small(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    return [
        layers.conv(32, 3, "conv_1", "same"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        layers.dense(num_classes, "logits", None),
    ]


def _cnn(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    return [
        layers.conv(32, 5, "conv_1", "same"),
        keras.layers.MaxPooling2D(2),
        layers.conv(64, 5, "conv_2", "same"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        layers.dense(512, "dense_1"),
        layers.dense(num_classes, "logits", None),
    ]


def _cnn_cifar(layers: _Layers, num_classes: int) -> list[keras.Layer]:
    return [
        layers.conv(32, 3, "conv_1"),
        layers.conv(64, 3, "conv_2"),
        keras.layers.MaxPooling2D(2),
        layers.dropout(0.25, "dropout_1"),
        keras.layers.Flatten(),
        layers.dense(128, "dense_1"),
        layers.dropout(0.5, "dropout_2"),
        layers.dense(num_classes, "logits", None),
    ]


@dataclass(frozen=True)
class _Architecture:
    """A model of ours; ``min_pixels`` is the smallest image side it takes, 0 where inputs are flattened."""

    layers: Callable[[_Layers, int], list[keras.Layer]]
    min_pixels: int = 0

    def fits(self, input_shape: Shape) -> bool:
        return not self.min_pixels or (len(input_shape) in (2, 3) and min(input_shape[:2]) >= self.min_pixels)


_ARCHITECTURES = {
    "logistic": _Architecture(_logistic),
    "mlp": _Architecture(_mlp),
    "mlp-dropout": _Architecture(_mlp_dropout),
    "cnn-small": _Architecture(_cnn_small, min_pixels=2),
    "cnn": _Architecture(_cnn, min_pixels=4),
    "cnn-cifar": _Architecture(_cnn_cifar, min_pixels=6),
}
MODEL_NAMES = tuple(_ARCHITECTURES)


def build_model(name: str, input_shape: Shape, num_classes: int, seed: int) -> keras.Model:
    """Build the model for inputs [batch, *input_shape], with initial weights drawn from the seed.

    ``name`` is one of `MODEL_NAMES` or the user's ``module:function``, called as function(input_shape, num_classes).
    Raises `TaskError` for an unknown name, for inputs that the model cannot take, and for whatever the user's function
    raises (chained).
    """
    if not is_reference(name) and name not in _ARCHITECTURES:
        raise TaskError(_unknown(name))
    if num_classes < 2:
        raise TaskError(f"The data has {num_classes} class(es), and a classifier needs at least 2: change dataset.")
    build = _build_own if name in _ARCHITECTURES else _build_users
    return _in_fresh_thread(lambda: build(name, input_shape, num_classes, seed))


def _unknown(name: str) -> str:
    hint = did_you_mean(name, MODEL_NAMES)
    return f"model={name!r} is not known{hint}: use one of {', '.join(MODEL_NAMES)}, or module:function."


def _build_own(name: str, input_shape: Shape, num_classes: int, seed: int) -> keras.Model:
    architecture = _ARCHITECTURES[name]
    if not architecture.fits(input_shape):
        fitting = ", ".join(key for key, other in _ARCHITECTURES.items() if other.fits(input_shape))
        raise TaskError(
            f"model={name!r} needs images of at least {architecture.min_pixels}x{architecture.min_pixels} pixels, but "
            f"the data has inputs of shape {input_shape}: change model to one that fits ({fitting}), or the dataset."
        )
    inputs = outputs = keras.Input(input_shape, name="inputs")
    if architecture.min_pixels and len(input_shape) == 2:  # grey images without a channel axis
        outputs = keras.layers.Reshape((*input_shape, 1))(outputs)
    for layer in architecture.layers(_Layers(seed), num_classes):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name.replace("-", "_"))


def _build_users(name: str, input_shape: Shape, num_classes: int, seed: int) -> keras.Model:
    function = load_function(name, "model")
    try:
        with _seeded(seed):
            model = function(input_shape, num_classes)
    except Exception as error:  # the user's code may raise anything; it is chained
        raise TaskError(
            f"model={name!r}: the function failed with {type(error).__name__}: {error} "
            f"when called with input_shape={input_shape} and num_classes={num_classes}."
        ) from error
    if not isinstance(model, keras.Model):
        raise TaskError(f"model={name!r}: the function must return a keras.Model, not a {type(model).__name__}.")
    return model


def _in_fresh_thread(build: Callable[[], keras.Model]) -> keras.Model:
    """Call ``build`` in a thread of its own.

    Keras numbers automatic layer names per thread. In a fresh one a user's first Dense layer is always "dense", and not
    "dense_7" in a process that has built other models before, so the names on the wire are the same everywhere.
    """
    outcome: list[keras.Model] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(build())
        except BaseException as error:  # handed on to the calling thread
            failure.append(error)

    thread = threading.Thread(target=work, name="build-model")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what a user's model may draw initial values from, and give Python's and NumPy's generators back untouched.

    TensorFlow's global seed cannot be read back, so it stays set; nothing of ours draws from it.
    """
    python_state: Any = random.getstate()
    numpy_state: Any = np.random.get_state()
    keras.utils.set_random_seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def check_fit(model: keras.Model, name: str, input_shape: Shape, num_classes: int) -> int:
    """Return the model's number of outputs per example: one per class, or a single one for two classes.

    Raises `TaskError` where model and data do not fit together. Tried on zeros, which also builds a model that its
    author has left unbuilt.
    """
    try:
        outputs = model(np.zeros((2, *input_shape), np.float32), training=False)
    except Exception as error:  # a user's layers may raise anything; it is chained
        raise TaskError(
            f"Model and data of different shapes: model={name!r} failed on inputs of shape {input_shape} "
            f"({type(error).__name__}: {error}): change model or dataset."
        ) from error
    shape = tuple(getattr(outputs, "shape", ()))
    if shape != (2, num_classes) and not (num_classes == 2 and shape == (2, 1)):
        given = shape[1:] or type(outputs).__name__
        raise TaskError(
            f"Model and data of different shapes: model={name!r} puts out {given} per example, and for labels of "
            f"{num_classes} classes it must be ({num_classes},): change model or dataset."
        )
    if not model.trainable_variables:
        raise TaskError(f"model={name!r} has no trainable weights, so there is nothing to train: change model.")
    paths = [weight.path for weight in model.weights]
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise TaskError(f"model={name!r} has two weights named {twice!r}: give its layers different names.")
    return int(shape[1])
