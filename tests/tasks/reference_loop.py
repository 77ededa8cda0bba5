"""The plain, slow way to train: eager, one batch after the other. What the compiled functions must equal."""

import keras
import numpy as np
import tensorflow as tf

from tasks.data import Examples


def loss_function(model: keras.Model) -> keras.losses.Loss:
    """Keras's own loss classes; all models tested put out logits unless their last layer is a softmax or sigmoid."""
    activation = getattr(model.layers[-1], "activation", None)
    from_logits = getattr(activation, "__name__", "linear") == "linear"
    if model.output_shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def epochs_of_batches(n: int, batch_size: int, epochs: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    batches = []
    for _ in range(epochs):
        order = generator.permutation(n)
        batches += [order[i : i + batch_size] for i in range(0, n, batch_size)]
    return batches


def reference_train(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    weights: list[np.ndarray],
    data: Examples,
    batches: list[np.ndarray],
    seed_states: np.ndarray,
    mu: float = 0.0,
    correction: list[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], float]:
    """Train a fresh model with a fresh optimizer; return the weights and the mean loss over the examples seen.

    The gradients of the proximal term and the correction are added to those of the loss, as the papers write them.
    """
    model.set_weights(weights)
    paths = [variable.path for variable in model.weights]
    start, added = dict(zip(paths, weights, strict=True)), dict(zip(paths, correction or [], strict=bool(correction)))
    generators = [v for v in model.variables if v.name == "seed_generator_state"]
    for variable, state in zip(generators, seed_states, strict=True):
        variable.assign(state)
    loss_of = loss_function(model)
    total = seen = 0.0
    for batch in batches:
        x, y = tf.constant(data.x[batch]), tf.constant(data.y[batch])
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = loss_of(y[:, None], outputs)
            value = loss + sum(model.losses)
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        pulled = [
            gradient + mu * (v.value - start[v.path]) + added.get(v.path, 0.0)
            for gradient, v in zip(gradients, model.trainable_variables, strict=True)
        ]
        optimizer.apply(pulled, model.trainable_variables)
        total, seen = total + float(loss) * len(batch), seen + len(batch)
    if getattr(optimizer, "use_ema", False):
        optimizer.finalize_variable_values(model.trainable_variables)
    return model.get_weights(), total / seen
