"""One number for each block of values: how it is read from a payload that another process sent."""

from __future__ import annotations

import numpy as np

from strategies.compression.pieces import Bytes
from strategies.errors import LayoutError
from strategies.updates import FloatVector


def scales_length(count: int, block: int) -> int:
    """Return how many bytes the scales of so many values take: a float32 for each block, begun or full."""
    return 4 * -(-count // block)


def read_scales(data: Bytes, count: int, block: int) -> FloatVector:
    """Return the scales at the beginning of the data; raises LayoutError where one is negative or not finite."""
    scales = np.frombuffer(data[: scales_length(count, block)], "<f4").astype(np.float32)
    if not (scales >= 0).all() or not np.isfinite(scales).all():
        raise LayoutError("malformed", "A scale of an update is negative or not finite.")
    return scales
