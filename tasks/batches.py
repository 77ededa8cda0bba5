"""The order in which local training goes through a client's examples."""

from __future__ import annotations

import math

import numpy as np


def batch_order(num_examples: int, batch_size: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``order`` and ``bounds``, int32, so that batch i is ``order[bounds[i]:bounds[i + 1]]``.

    Every epoch is a fresh permutation and ends with its partial batch; the last epoch may be cut off after ``steps``.
    """
    per_epoch = math.ceil(num_examples / batch_size)
    epochs = math.ceil(steps / per_epoch)
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(num_examples) for _ in range(epochs)])
    starts = np.arange(epochs)[:, np.newaxis] * num_examples + np.arange(per_epoch) * batch_size
    bounds = np.append(starts.ravel(), len(order))[: steps + 1]
    return order[: bounds[-1]].astype(np.int32), bounds.astype(np.int32)
