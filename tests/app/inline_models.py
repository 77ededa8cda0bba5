"""Models with mistakes that users make, for ``model="tests.app.inline_models:..."``."""

import keras


def three_classes(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(3)])


def broken(input_shape, num_classes):
    raise RuntimeError("out of ideas")


def exponential(input_shape, num_classes):
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes, activation="exponential")]
    )
