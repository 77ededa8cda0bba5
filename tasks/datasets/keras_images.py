"""The image sets of ``keras.datasets``: MNIST, Fashion-MNIST, CIFAR-10. Files that Keras has cached are used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.data import ArrayData
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate, images_or_numbers
from tasks.errors import TaskError

_MODULES = {"mnist": "mnist", "fashion-mnist": "fashion_mnist", "cifar10": "cifar10"}
_FILES = {"mnist": "mnist.npz", "fashion-mnist": "fashion-mnist", "cifar10": "cifar-10-batches-py-target"}
"""Where Keras keeps them, under datasets/ in its home."""


def load(argument: str, spec: DataSpec) -> ArrayData:
    """Load images as [height, width, channels] in [0, 1], with the set's own test part as central test set.

    They stay uint8 until a client is loaded. Raises `TaskError` where they are neither cached nor can be downloaded.
    """
    name = spec.dataset
    (x_train, y_train), (x_test, y_test) = _arrays(name)
    train, test = images_or_numbers(x_train, y_train, name), images_or_numbers(x_test, y_test, name)
    return federate(name, train, test, spec, num_classes=10)


def _arrays(name: str) -> Any:
    """Return (x, y) of the training part and (x, y) of the test part."""
    import keras

    try:
        return getattr(keras.datasets, _MODULES[name]).load_data()
    except Exception as error:  # Keras raises a plain Exception where a download fails
        raise TaskError(
            f"dataset='{name}' is neither cached as {_keras_home() / 'datasets' / _FILES[name]} nor can it be "
            f"downloaded ({type(error).__name__}: {error}): connect to the internet once, copy the cached file there, "
            "set KERAS_HOME to the folder that holds it, or choose another 'dataset'."
        ) from error


def _keras_home() -> Path:
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")))  # noqa: PTH111, as Keras finds it
