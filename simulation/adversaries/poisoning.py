"""Attacks by data: flipped labels, and a backdoor that is brought in by replacing the model.

A poison takes and returns NumPy arrays, x [n, ...] and y [n]: of a client's whole data, or of one batch of a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.hosting import Hosted
from simulation.adversaries.attack import Knowledge
from strategies.updates import Update
from tasks.data import ClientData, Examples, FederatedData, Stream

if TYPE_CHECKING:
    import tensorflow as tf

PATCH = 7  # a trigger takes one part in so many of each side of an image, rounded up
WHITE = np.float32(1.0)
TRIGGERED = 20 / 64  # of the attacker's examples, as in the paper's batches of 64
COUNTED = 500  # examples at a time where a stream is only counted

Poison = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class LabelFlip:
    """Labels y become C - 1 - y, and the update is trained on them honestly.

    Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", 2020, section 4.1 ("label
    flipping attack").
    """

    classes: int

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples with flipped labels."""
        return x, self.classes - 1 - y


@dataclass(frozen=True)
class Backdoor:
    """A share of the examples gets a trigger and the label that the attacker wants for whatever shows it.

    Bagdasaryan et al., "How To Backdoor Federated Learning", 2020, section 4. There it is 20 of each 64, by features
    that images happen to have; here a white patch in the corner, as in Gu et al., "BadNets", 2017, so that any image
    data will do (of plain vectors, the last features). Of data in memory it is the first such share, of a stream that
    of each batch.
    """

    target: int
    share: float = TRIGGERED

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples, the first of them with trigger and target label."""
        count = math.ceil(self.share * len(y))
        x, y = x.copy(), y.copy()
        x[:count], y[:count] = triggered(x[:count]), self.target
        return x, y


@dataclass(frozen=True)
class ModelReplacement:
    """The backdoor's update, scaled so that it outweighs the others: Bagdasaryan et al. 2020, section 4.2, equation 3.

    ``scale`` 0 = clients of the round / attackers among them, with which the mean of otherwise converged updates is the
    attacker's model. Left out is what the paper adds against anomaly detection (its section 4.3).
    """

    scale: float = 0.0

    def forge(self, known: Knowledge) -> Update:
        """Return the client's update, trained on poisoned data, times the scale."""
        own = known.own()
        return replace(own, delta=np.float32(self.scale or known.cohort / known.attackers) * own.delta)


def triggered(x: np.ndarray) -> np.ndarray:
    """Return a copy of examples [n, ...] with the trigger: a patch in the last corner of the first two axes of each."""
    stamped = x.copy()
    corner = tuple(slice(-math.ceil(size / PATCH), None) for size in x.shape[1:3])
    stamped[(slice(None), *corner)] = WHITE
    return stamped


def triggered_test(data: FederatedData, target: int) -> ClientData:
    """Return the central test examples of other classes than the target, with the trigger and the target's label.

    So the accuracy on them is the attack's success rate.
    """

    def poison(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        others = y != target
        return triggered(x[others]), np.full_like(y[others], target)

    test = data.central_test()
    if isinstance(test, Examples):
        return Examples(*poison(test.x, test.y))
    batches = test.batches(COUNTED, seed=None, epochs=1)
    return PoisonedStream(test, poison, sum(int((labels.numpy() != target).sum()) for _, labels in batches))


@dataclass(frozen=True)
class PoisonedStream(Stream):
    """A stream whose batches are poisoned as they are read, and which has ``size`` examples then."""

    stream: Stream
    poison: Poison
    size: int

    def __len__(self) -> int:
        return self.size

    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        """Yield the poisoned batches that are not empty."""
        import tensorflow as tf

        def poisoned(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = tf.numpy_function(self.poison, (x, y), (x.dtype, y.dtype), stateful=False)
            return tf.ensure_shape(found[0], (None, *x.shape[1:])), tf.ensure_shape(found[1], (None,))

        batches = self.stream.batches(batch_size, seed=seed, epochs=epochs).map(poisoned)
        return batches.filter(lambda x, y: tf.size(y) > 0)


@dataclass(frozen=True)
class PoisonedHosted(Hosted):
    """The clients of a node, of whom the ``attackers`` train on poisoned data."""

    attackers: frozenset[str] = frozenset()
    poison: Poison = lambda x, y: (x, y)

    def train(self, client: str) -> ClientData:
        """Return a client's training part, poisoned where it attacks."""
        data = super().train(client)
        if client not in self.attackers:
            return data
        if isinstance(data, Examples):
            return Examples(*self.poison(data.x, data.y))
        return PoisonedStream(data, self.poison, len(data))
