"""Models that DP-SGD treats in ways of its own, as a user would write them."""

import keras

layers = keras.layers


def strided(input_shape, num_classes):
    """Convolutions with strides, dilation, no bias, odd kernels and both kinds of padding; a nested model."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="tanh"),
            keras.Sequential([layers.Conv2D(5, 2, dilation_rate=2, use_bias=False), layers.ReLU()]),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(num_classes, kernel_regularizer=keras.regularizers.L2(0.01)),
        ]
    )


def frozen(input_shape, num_classes):
    """A frozen layer ahead of a trained one, and a frozen batch normalisation, which keeps its statistics."""
    first, norm = layers.Dense(12, "relu"), layers.BatchNormalization()
    first.trainable = norm.trainable = False
    return keras.Sequential(
        [keras.Input(input_shape), layers.Flatten(), first, norm, layers.Dense(6, "relu"), layers.Dense(num_classes)]
    )


def shared(input_shape, num_classes):
    """A layer that is used twice: an example's gradient is the sum over both uses."""
    inputs, twice = keras.Input(input_shape), layers.Dense(12, "tanh")
    hidden = layers.Dense(12)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(num_classes)(twice(twice(hidden))))


def embedded(input_shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Lambda(lambda x: keras.ops.clip(x + 2, 0, 3)),
            layers.Embedding(4, 3),
            layers.GlobalAveragePooling1D(),
            layers.Dense(num_classes),
        ]
    )


def separable(input_shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.SeparableConv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(num_classes),
        ]
    )


def dropout(input_shape, num_classes):
    """Half of the inputs dropped out, in Keras's own layers alone."""
    return keras.Sequential(
        [keras.Input(input_shape), layers.Flatten(), layers.Dropout(0.5, seed=1), layers.Dense(num_classes)]
    )


def dropout_and_norm(input_shape, num_classes):
    """The same, with a layer whose gradients no probe sees."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.LayerNormalization(),
            layers.Dropout(0.5, seed=1),
            layers.Dense(num_classes),
        ]
    )


def activity(input_shape, num_classes):
    return keras.Sequential(
        [keras.Input(input_shape), layers.Flatten(), layers.Dense(num_classes, activity_regularizer="l2")]
    )


def spectral(input_shape, num_classes):
    return keras.Sequential(
        [keras.Input(input_shape), layers.Flatten(), layers.SpectralNormalization(layers.Dense(num_classes))]
    )
