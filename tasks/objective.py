"""What local training minimises, and what evaluation reports: loss and accuracy, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over a model's outputs.

    ``kind`` "binary" is for models with one output per example, "categorical" for one output per class;
    ``from_logits`` is False where the outputs are probabilities. Hashable: one compiled function per objective.
    """

    kind: Literal["binary", "categorical"]
    from_logits: bool = True

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of each example, float32 [batch]; y is int32 [batch], outputs float [batch, 1 or classes]."""
        if self.kind == "binary":
            y = tf.cast(y, outputs.dtype)[:, tf.newaxis]
            losses = keras.losses.binary_crossentropy(y, outputs, from_logits=self.from_logits)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=self.from_logits)
        return tf.cast(losses, tf.float32)

    def hits(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """1 where the example is classified rightly, else 0: float32 [batch]."""
        if self.kind == "binary":
            predictions = tf.cast(outputs[:, 0] > (0.0 if self.from_logits else 0.5), y.dtype)
        else:
            predictions = tf.argmax(outputs, axis=-1, output_type=y.dtype)
        return tf.cast(predictions == y, tf.float32)

    def value(self, losses: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """What one step minimises, a scalar: the mean of the batch's losses, where ``mask`` [batch] is 1 if given."""
        return tf.reduce_mean(losses) if mask is None else tf.reduce_sum(losses * mask) / tf.reduce_sum(mask)


@dataclass(frozen=True)
class Terms:
    """What a client minimises beside the loss of its data, over its trainable weights w; each part may be empty.

    ``proximal`` holds mu and where w began, w_t: FedProx's term mu/2 ||w - w_t||^2 (Li, Sahu, Zaheer, Sanjabi,
    Talwalkar, Smith: "Federated Optimization in Heterogeneous Networks", 2020, eq. 2). ``correction`` holds what
    SCAFFOLD adds to the gradient in every step, its c - c_i (Karimireddy et al.: "SCAFFOLD: Stochastic Controlled
    Averaging for Federated Learning", 2020, algorithm 1), as the term whose gradient that is: the inner product with
    w. So an optimizer that scales or clips gradients does it to the whole one. All are float32.
    """

    proximal: Sequence[tf.Tensor] = ()
    correction: Sequence[tf.Tensor] = ()

    @property
    def tensors(self) -> list[tf.Tensor]:
        """All of them, as a compiled function takes them."""
        return [*self.proximal, *self.correction]

    def values(self, weights: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the terms, scalars. Weights of a group, [clients, ...], give the sum over its clients."""
        values, weights = [], [tf.cast(weight, tf.float32) for weight in weights]
        if self.proximal:
            mu, *start = self.proximal
            halves = [tf.nn.l2_loss(weight - begun) for weight, begun in zip(weights, start, strict=True)]
            values.append(mu * tf.add_n(halves))
        if self.correction:
            products = [tf.reduce_sum(weight * own) for weight, own in zip(weights, self.correction, strict=True)]
            values.append(tf.add_n(products))
        return values


def objective_for(model: keras.Model, num_outputs: int) -> Objective:
    """Derive the objective from a built model and its number of outputs per example.

    The outputs are probabilities where the last layer is or ends in a softmax or sigmoid. A subclassed model does not
    say what its last layer is: its outputs are taken for logits.
    """
    return Objective("binary" if num_outputs == 1 else "categorical", from_logits=not _ends_in_probabilities(model))


def _ends_in_probabilities(model: keras.Model) -> bool:
    if not getattr(model, "inputs", None):  # neither Sequential nor functional
        return False
    last = model.layers[-1]
    if isinstance(last, keras.Model):
        return _ends_in_probabilities(last)
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or getattr(activation, "__name__", "") in ("softmax", "sigmoid")
