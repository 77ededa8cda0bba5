"""A stream of examples held in memory, shuffled as `tasks.batches.batch_order` shuffles."""

import numpy as np
import tensorflow as tf

from tasks.data import Examples, Stream


class MemoryStream(Stream):
    def __init__(self, data: Examples, announced: int | None = None) -> None:
        self.data, self.announced = data, announced or len(data)

    def __len__(self) -> int:
        return self.announced

    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        n = len(self.data)
        generator = np.random.default_rng(seed)
        orders = [np.arange(n) if seed is None else generator.permutation(n) for _ in range(epochs)]
        parts = [
            tf.data.Dataset.from_tensor_slices((self.data.x[order], self.data.y[order])).batch(batch_size)
            for order in orders
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.concatenate(part)
        return whole
