"""Federated data: what each client holds, and the test set that nobody trains on.

Data in memory are kept once, as they are stored (images as uint8), with an index array per client; a client's part is
cut out, converted and scaled when it is asked for, and the last few stay converted. Data that do not fit in memory are
streams (see `tasks.datasets.tfrecord`).
"""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tasks.errors import TaskError

if TYPE_CHECKING:
    import tensorflow as tf

KEPT_BYTES = 128 * 2**20
"""What the converted training parts that a data set keeps may take, in each process."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples in memory: ``x`` float32 [n, *input_shape], ``y`` int32 [n]."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.y)


class Stream(ABC):
    """Examples that are read as they are used and never lie in memory together."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        """Yield (x float32 [b, *input_shape], y int32 [b]); the last batch of an epoch may be smaller.

        With a seed each epoch has an order of its own that the seed decides; without one it is the order of storage.
        """


ClientData = Examples | Stream


class FederatedData(Protocol):
    """A dataset cut into clients. Ids are stable: the same configuration gives the same clients in every process."""

    name: str
    num_classes: int
    input_shape: tuple[int, ...]
    client_ids: tuple[str, ...]

    def num_train(self, client_id: str) -> int:
        """Return the size of a client's training part without loading it."""

    def train(self, client_id: str) -> ClientData:
        """Return a client's training part; at least one example."""

    def test(self, client_id: str) -> ClientData:
        """Return a client's own test part; may be empty."""

    def central_test(self) -> ClientData:
        """Return the test set that no client holds; empty where there is none."""

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many training examples of each class each client has, [clients, classes]."""


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """A table of examples as stored: ``x`` of any real dtype, multiplied by ``scale`` when it is used; ``y`` [n]."""

    x: npt.NDArray[np.generic]
    y: npt.NDArray[np.int32]
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    def part(self, indices: Indices) -> Examples:
        """Cut out examples as float32."""
        x = self.x[indices].astype(np.float32)
        if self.scale != 1.0:
            x *= np.float32(self.scale)
        return Examples(x, self.y[indices])

    def whole(self) -> Examples:
        """Return all examples as float32."""
        return self.part(np.arange(len(self)))


@dataclass(frozen=True, eq=False)
class ClientSplit:
    """The indices of one client's examples: those it trains on, and its own test part."""

    train: Indices
    test: Indices


def split_client(indices: Indices, client_id: str, test_fraction: float, seed: int) -> ClientSplit:
    """Set aside a share of a client's examples as its own test part, at random but leaving at least one to train on.

    Depends on (seed, client id, indices) only, so every process and every order of calls gives the same split.
    """
    held_out = min(round(test_fraction * len(indices)), len(indices) - 1)
    if held_out <= 0:
        return ClientSplit(indices, indices[:0])
    digest = hashlib.sha256(f"{seed}/{client_id}/client-test".encode()).digest()
    shuffled = np.random.default_rng(int.from_bytes(digest, "big")).permutation(indices)
    return ClientSplit(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]))


class ArrayData:
    """`FederatedData` over arrays in memory."""

    def __init__(
        self,
        name: str,
        arrays: LabelledArrays,
        central: LabelledArrays,
        clients: Mapping[str, ClientSplit],
        num_classes: int,
    ) -> None:
        """Raise TaskError where a client has nothing to train on."""
        for client_id, split in clients.items():
            if len(split.train) == 0:
                raise TaskError(
                    f"The client '{client_id}' of dataset '{name}' has no training examples: lower 'num-clients', "
                    "raise 'min-client-examples' or 'dirichlet-alpha', or remove the client from the data."
                )
        self.name = name
        self.num_classes = num_classes
        self.input_shape = tuple(arrays.x.shape[1:])
        self.client_ids = tuple(clients)
        self._arrays = arrays
        self._central = central
        self._clients = clients
        rows = max((len(split.train) for split in clients.values()), default=1)
        kept = KEPT_BYTES // (rows * math.prod(self.input_shape) * np.float32().nbytes)
        self._kept_train = functools.lru_cache(maxsize=int(max(1, kept)))(self._load_train)

    def num_train(self, client_id: str) -> int:
        """Return the size of a client's training part without loading it."""
        return len(self._split(client_id).train)

    def train(self, client_id: str) -> Examples:
        """Return a client's training part; the last ones stay converted, read-only, in `KEPT_BYTES`."""
        return self._kept_train(client_id)

    def test(self, client_id: str) -> Examples:
        """Return a client's own test part; may be empty."""
        return self._arrays.part(self._split(client_id).test)

    def central_test(self) -> Examples:
        """Return the test set that no client holds; empty where there is none."""
        return self._central.whole()

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many training examples of each class each client has, [clients, classes]."""
        counts = np.zeros((len(self._clients), self.num_classes), dtype=np.int64)
        for row, split in enumerate(self._clients.values()):
            counts[row] = np.bincount(self._arrays.y[split.train], minlength=self.num_classes)
        return counts

    def _load_train(self, client_id: str) -> Examples:
        examples = self._arrays.part(self._split(client_id).train)
        examples.x.flags.writeable = examples.y.flags.writeable = False  # whoever asks next gets the same arrays
        return examples

    def _split(self, client_id: str) -> ClientSplit:
        if client_id not in self._clients:
            raise TaskError(
                f"There is no client '{client_id}' in dataset '{self.name}' with its {len(self._clients)} clients: "
                "the server and the nodes must use the same 'dataset', 'partition' and 'num-clients'."
            )
        return self._clients[client_id]
