"""The workloads of the speed benchmarks: made-up images that can be learnt, dealt to any number of clients, and models.

Data and models are named in a run config as the user's own (``dataset=benchmarks.workloads:images_600``). The images of
a class are that class's mean plus noise, so that losses fall as on real data. Clients of a large population share one
pool of images: what a population costs is then not hidden behind the memory of its data.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.data import Examples

POOL = 60_000
CLASSES = 10


@dataclass(frozen=True)
class PooledClients:
    """`tasks.data.FederatedData`: client k holds ``examples`` of the pool, from k * examples on, around its end."""

    name: str
    num_clients: int
    examples: int
    input_shape: tuple[int, ...]
    num_classes: int = CLASSES

    @functools.cached_property
    def client_ids(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(f"client-{number}" for number in range(self.num_clients))

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {client: number for number, client in enumerate(self.client_ids)}

    @functools.cached_property
    def pool(self) -> Examples:
        """The images that the clients share."""
        size = min(POOL, self.num_clients * self.examples)
        return learnable_images(size, self.input_shape)

    def num_train(self, client_id: str) -> int:
        """Every client has as many examples."""
        return self.examples

    def train(self, client_id: str) -> Examples:
        """Return the client's images."""
        start = self._numbers[client_id] * self.examples % len(self.pool)
        return Examples(self.pool.x[start : start + self.examples], self.pool.y[start : start + self.examples])

    def test(self, client_id: str) -> Examples:
        """Return nothing: these benchmarks train."""
        return Examples(self.pool.x[:0], self.pool.y[:0])

    def central_test(self) -> Examples:
        """Return the first thousand images, to see that the model learns."""
        return Examples(self.pool.x[:1000], self.pool.y[:1000])

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many examples of each class each client has."""
        counts = np.zeros((self.num_clients, self.num_classes), np.int64)
        starts = np.arange(self.num_clients) * self.examples % len(self.pool)
        for offset in range(self.examples):
            counts[np.arange(self.num_clients), self.pool.y[starts + offset]] += 1
        return counts


def learnable_images(size: int, shape: Sequence[int], seed: int = 0) -> Examples:
    """Draw images [size, *shape] around a mean of each class, float32, always the same."""
    generator = np.random.default_rng(seed)
    means = generator.normal(0.0, 0.3, (CLASSES, *shape)).astype(np.float32)
    y = generator.integers(CLASSES, size=size).astype(np.int32)
    x = generator.standard_normal((size, *shape), dtype=np.float32)
    x += means[y]
    return Examples(x, y)


@functools.cache
def _clients(num_clients: int, examples: int, shape: tuple[int, ...]) -> PooledClients:
    return PooledClients(f"pool-{num_clients}", num_clients, examples, shape)


def images_600() -> PooledClients:
    """600 clients with 100 grey images of 28x28 each."""
    return _clients(600, 100, (28, 28, 1))


def images_1000() -> PooledClients:
    """1,000 clients with 100 grey images of 28x28 each."""
    return _clients(1_000, 100, (28, 28, 1))


def images_10000() -> PooledClients:
    """10,000 clients with 100 grey images of 28x28 each."""
    return _clients(10_000, 100, (28, 28, 1))


def images_100000() -> PooledClients:
    """100,000 clients with 100 grey images of 28x28 each."""
    return _clients(100_000, 100, (28, 28, 1))


def colour_1000() -> PooledClients:
    """pfl-research's CIFAR10 set-up: 1,000 clients with 50 images of 32x32x3 each."""
    return _clients(1_000, 50, (32, 32, 3))


def mlp(input_shape: tuple[int, ...], num_classes: int) -> object:
    """Return the dense network 784-200-200-10: 199,210 parameters."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(200, "relu"),
            layers.Dense(200, "relu"),
            layers.Dense(num_classes),
        ]
    )


def cnn(input_shape: tuple[int, ...], num_classes: int) -> object:
    """Return conv 32, pool, conv 64, pool, dense 128: 225,034 parameters on 28x28x1."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, "relu"),
            layers.Dense(num_classes),
        ]
    )
