"""One number for each block of values: how it is read from a payload that another process sent."""

from __future__ import annotations

import numpy as np

from strategies.compression.pieces import Bytes
from strategies.errors import LayoutError
from strategies.updates import FloatVector

LARGEST_SCALE = 2.0**102  # 2^64, the largest value that is compressed, times 2^32 in random-k and 2^6 in a rotation


def scales_length(count: int, block: int) -> int:
    """Return how many bytes the scales of so many values take: a float32 for each block, begun or full."""
    return 4 * -(-count // block)


def read_scales(data: Bytes, count: int, block: int) -> FloatVector:
    """Return the scales at the beginning of the data; raises LayoutError where one is negative or beyond all bounds."""
    scales = np.frombuffer(data[: scales_length(count, block)], "<f4").astype(np.float32)
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():  # false for NaN
        raise LayoutError("malformed", "A scale of an update is negative, beyond 2^102 or not a number.")
    return scales
