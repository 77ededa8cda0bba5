"""What federated data looks like to training: examples or a stream per client, each with its own test part."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from tasks.errors import TaskError
from tasks.seeding import generator

if TYPE_CHECKING:
    import tensorflow as tf

CACHED_BYTES = 128 * 2**20
"""How much client data, as float32, an `ArrayData` keeps."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples in memory: ``x`` float32 [n, *input_shape], ``y`` int32 [n]."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)


class Stream(ABC):
    """Examples that are read while they are used, and never lie in memory as a whole."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples of one epoch."""

    @abstractmethod
    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        """Give batches of (x float32 [b, *input_shape], y int32 [b]); an epoch's last batch may be smaller.

        ``seed`` decides the order, another one in every epoch; None is the order of the files. Equal arguments give
        equal batches.
        """


ClientData: TypeAlias = Examples | Stream


@runtime_checkable
class FederatedData(Protocol):
    """A data set dealt to clients. An unknown client id raises `TaskError`."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def num_classes(self) -> int:
        """Labels are 0 to num_classes - 1."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Stable ids: "0" to "n-1", or the data set's own (writers, silos, hospitals)."""

    def num_train(self, client_id: str) -> int:
        """Return the size of the client's training part, without loading it."""

    def train(self, client_id: str) -> ClientData:
        """Return the client's training part; it has at least one example."""

    def test(self, client_id: str) -> ClientData:
        """Return the client's own test part; it may be empty."""

    def central_test(self) -> ClientData:
        """Return the held-out test set; empty where there is none."""

    def label_counts(self) -> np.ndarray:
        """Count labels in the training parts: int64 [clients, classes], rows as in ``client_ids``."""


class Source(Protocol):
    """All examples of a data set, by index."""

    @property
    def labels(self) -> np.ndarray:
        """Labels of all examples: int32 [n]."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    def take(self, indices: np.ndarray) -> Examples:
        """Load the examples with these indices, in this order."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """A source in memory. ``x`` [n, *input_shape] keeps its storage dtype and is divided by ``scale`` when taken."""

    x: np.ndarray
    labels: np.ndarray
    scale: float = 1.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.x.shape[1:]

    def take(self, indices: np.ndarray) -> Examples:
        """Load the examples with these indices, in this order; they cannot be written to."""
        x = self.x[indices].astype(np.float32)
        if self.scale != 1.0:
            x /= np.float32(self.scale)
        y = self.labels[indices].astype(np.int32)
        x.flags.writeable = y.flags.writeable = False
        return Examples(x, y)


def num_own_test(num_examples: int, fraction: float) -> int:
    """Return how many of a client's examples are its test part: the fraction, rounded; one always stays for training."""
    return max(0, min(num_examples - 1, round(num_examples * fraction)))


def draw_part(num_examples: int, size: int, seed: int, purpose: str, client: str) -> np.ndarray:
    """Draw which of a client's examples form a part: bool [num_examples], ``size`` of them true.

    Depends on the arguments alone, so that a client's part is the same whoever asks first.
    """
    mask = np.zeros(num_examples, dtype=bool)
    mask[generator(seed, purpose, client).permutation(num_examples)[:size]] = True
    return mask


@dataclass(frozen=True, eq=False)
class ClientParts:
    """Which examples are whose: ``train`` and ``test`` hold an index array per client.

    Where ``test`` is None, ``own_test_fraction`` of the client's examples, drawn by ``seed`` and client id, are its test
    part, and ``train`` holds all of them.
    """

    client_ids: tuple[str, ...]
    train: Sequence[np.ndarray]
    test: Sequence[np.ndarray] | None = None
    own_test_fraction: float = 0.0
    seed: int = 0

    def num_train(self, client: int) -> int:
        """Return the size of a client's training part."""
        n = len(self.train[client])
        return n if self.test is not None else n - num_own_test(n, self.own_test_fraction)

    def split(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of a client's training and test part."""
        own = self.train[client]
        if self.test is not None:
            return own, self.test[client]
        size = num_own_test(len(own), self.own_test_fraction)
        mask = draw_part(len(own), size, self.seed, "own test part", self.client_ids[client])
        return own[~mask], own[mask]


class ArrayData:
    """Federated data over a source and index arrays; what clients used last is kept, up to `CACHED_BYTES`.

    ``central`` is a source and the indices in it of the held-out test set. Safe to use from several threads.
    """

    def __init__(
        self, name: str, num_classes: int, source: Source, parts: ClientParts, central: tuple[Source, np.ndarray]
    ) -> None:
        self.name = name
        self.num_classes = num_classes
        self.input_shape = tuple(source.input_shape)
        self.client_ids = parts.client_ids
        self._source, self._parts, self._central = source, parts, central
        self._positions = {client: k for k, client in enumerate(parts.client_ids)}
        self._kept: OrderedDict[tuple[str, int], Examples] = OrderedDict()
        self._central_test: Examples | None = None
        self._lock = threading.Lock()
        for client, k in self._positions.items():
            if parts.num_train(k) == 0:
                raise TaskError(
                    f"Client {client!r} of dataset={name!r} has no training examples: give it some, or raise "
                    "min-client-examples to leave it out."
                )

    def num_train(self, client_id: str) -> int:
        """Return the size of the client's training part, without loading it."""
        return self._parts.num_train(self._position(client_id))

    def train(self, client_id: str) -> Examples:
        """Return the client's training part."""
        return self._load(client_id, 0)

    def test(self, client_id: str) -> Examples:
        """Return the client's own test part; it may be empty."""
        return self._load(client_id, 1)

    def central_test(self) -> Examples:
        """Return the held-out test set, which is kept once loaded; empty where there is none."""
        with self._lock:
            if self._central_test is None:
                source, indices = self._central
                self._central_test = source.take(indices)
            return self._central_test

    def label_counts(self) -> np.ndarray:
        """Count labels in the training parts: int64 [clients, classes]."""
        labels = self._source.labels
        counts = np.zeros((len(self.client_ids), self.num_classes), dtype=np.int64)
        for k in range(len(self.client_ids)):
            train, _ = self._parts.split(k)
            counts[k] = np.bincount(labels[train], minlength=self.num_classes)
        return counts

    def _position(self, client_id: str) -> int:
        try:
            return self._positions[client_id]
        except KeyError:
            raise TaskError(
                f"The data set {self.name!r} has no client {client_id!r}: it has {len(self.client_ids)} clients, "
                f"from {self.client_ids[0]!r} to {self.client_ids[-1]!r}."
            ) from None

    def _load(self, client_id: str, part: int) -> Examples:
        position, key = self._position(client_id), (client_id, part)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        examples = self._source.take(self._parts.split(position)[part])
        with self._lock:
            self._kept[key] = examples
            while len(self._kept) > 1 and sum(e.x.nbytes for e in self._kept.values()) > CACHED_BYTES:
                self._kept.popitem(last=False)
        return examples
