"""Examples read from TFRecord files as they are used: parsed in TensorFlow's graph, shuffled in bounded memory.

The order of an epoch depends on (seed, epoch, files) alone. tf.data's own ``shuffle(seed=...)`` mixes in TensorFlow's
global seed, so the operation below it is used, which takes both halves of its seed as they are.

A shuffle buffer holds at most `BUFFER_BYTES` of records; a silo that is larger is shuffled within that window only,
and over `FILES_AT_ONCE` of its files in an order drawn anew each epoch. So a large silo should be cut into several
files, or be written in random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.data import Stream
from tasks.datasets.silo_files import Schema

if TYPE_CHECKING:
    import tensorflow as tf

BUFFER_BYTES = 64 * 2**20
FILES_AT_ONCE = 8

_OVERHEAD = 512  # bytes of a tensor and a record around the numbers of an example, roughly


@dataclass(frozen=True)
class Cut:
    """Which records of a silo are its own test part: ``held_out`` of ``size``, one from each of as many stretches.

    Where in its stretch the record lies follows the golden ratio from ``salt`` on, so that records written in a regular
    order (class by class, in turns) do not all give the test part the same class.
    """

    size: int
    held_out: int = 0
    salt: int = 0


@dataclass(frozen=True)
class FileSlice:
    """The records of one file that a stream reads: those of the test part, or those of the training part.

    ``start`` is the position of the file's first record in its silo, to which the cut refers.
    """

    path: Path
    start: int
    cut: Cut
    test: bool


class RecordStream(Stream):
    """A stream over slices of files, one after the other where it is not shuffled.

    What is read is checked in the graph; a record that is corrupt or does not fit the schema raises a tf.errors.OpError
    when it is reached, which names the part.
    """

    def __init__(self, name: str, slices: Sequence[FileSlice], size: int, schema: Schema) -> None:
        self.name = name
        self.slices = tuple(slices)
        self.schema = schema
        self._size = size

    def __len__(self) -> int:
        return self._size

    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        """Yield (x float32 [b, *shape], y int32 [b]); the last batch of an epoch may be smaller."""
        from tasks.datasets.record_pipeline import batches_in_order, shuffled_batches, with_fixed_order

        counts = (np.int64(batch_size), np.int64(epochs))
        if seed is None:
            return with_fixed_order(batches_in_order(self.schema, len(self.slices) == 1)(*self._files(), *counts))
        window = max(1, min(self._size, BUFFER_BYTES // (self.schema.num_bytes + _OVERHEAD)))
        return with_fixed_order(
            shuffled_batches(self.schema, len(self.slices) == 1)(
                *self._files(), *counts, np.int64(window), np.int64(seed)
            )
        )

    def count_labels(self) -> npt.NDArray[np.int64]:
        """Count the examples of each class, [classes], by reading everything once. Raises tf.errors.OpError."""
        from tasks.datasets.record_pipeline import labels_in_order, with_fixed_order

        counts = np.zeros(self.schema.num_classes, np.int64)
        for y in with_fixed_order(
            labels_in_order(self.schema, len(self.slices) == 1)(*self._files())
        ).as_numpy_iterator():
            counts += np.bincount(y, minlength=len(counts))
        return counts

    def _files(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return name, paths and numbers of the slices: as tensors, so that one graph reads any part."""
        import tensorflow as tf

        paths = tf.constant([str(part.path) for part in self.slices], tf.string, [len(self.slices)])
        rows = [(part.start, part.cut.size, part.cut.held_out, part.cut.salt, part.test) for part in self.slices]
        return tf.constant(self.name), paths, tf.constant(np.array(rows, np.int64).reshape(-1, 5))
