"""Models as a user would write them, for ``model="tests.tasks.user_models:..."``."""

import keras
import numpy as np


def batch_norm(input_shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            # A bias ahead of BatchNormalization has gradient 0 but for rounding, which Adam-like optimizers blow up.
            keras.layers.Dense(16, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.3),
            keras.layers.GaussianNoise(0.1),
            keras.layers.Dense(num_classes),
        ]
    )


def normed(input_shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(12, "tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(num_classes),
        ]
    )


def softmax(input_shape, num_classes):
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes, "softmax")]
    )


def sigmoid(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])


class Subclassed(keras.Model):
    def __init__(self, num_classes):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.first = keras.layers.Dense(8, "relu")
        self.last = keras.layers.Dense(num_classes)

    def call(self, x, training=False):
        return self.last(self.first(self.flatten(x)))


def subclassed(input_shape, num_classes):
    return Subclassed(num_classes)


def numpy_initialised(input_shape, num_classes):
    model = softmax(input_shape, num_classes)
    model.set_weights([np.random.normal(size=w.shape) for w in model.get_weights()])
    return model


def tiny(input_shape, num_classes):
    dense, regularizers = keras.layers.Dense, keras.regularizers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            dense(3, "tanh", kernel_regularizer=regularizers.L2(0.01)),  # by the last axis, before it is flattened
            keras.layers.Flatten(),
            keras.Sequential([dense(8, use_bias=False), keras.layers.ReLU()]),
            dense(5, "gelu", bias_regularizer=regularizers.L1(0.01)),
            dense(1 if num_classes == 2 else num_classes),
        ]
    )


def shared(input_shape, num_classes):
    inputs, twice = keras.Input(input_shape), keras.layers.Dense(16, "tanh")
    outputs = twice(twice(keras.layers.Flatten()(inputs)))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(outputs))


def images_only(input_shape, num_classes):
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(num_classes)])


def three_outputs(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(3)])


def nothing_to_train(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Softmax()])


def broken(input_shape, num_classes):
    raise ZeroDivisionError("no such thing")


def not_a_model(input_shape, num_classes):
    return 3


not_a_function = 7
