"""How many bytes updates will take, for who has to know it before anything is trained: a simulated network."""

from __future__ import annotations

import functools

import numpy as np

from strategies.compression.codec import Codec


@functools.lru_cache(maxsize=8)
def expected_bytes(codec: Codec, size: int) -> int:
    """Return what the codec makes of so many normal numbers, as updates more or less are.

    Each class of codec has its own lengths: many are fixed, and others depend on the values too little to matter here.
    """
    update = np.random.default_rng(0).standard_normal(size, np.float32)
    return codec.encode(update, 0, 0).nbytes
