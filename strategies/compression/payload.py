"""The Flower `Array` that a compressed update travels as: bytes of ours, under a name that says which.

Flower and stock apps carry such an array as any other; only who knows the name reads it. An update that is not
compressed stays an ordinary array in NumPy's format.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array

from strategies import wire
from strategies.compression.header import WIRE_VERSION
from strategies.errors import LayoutError
from strategies.updates import AnyArray

KIND = "fedkeras.update."
STYPE = f"{KIND}v{WIRE_VERSION}"


def written(payload: AnyArray) -> Array:
    """Return the array that carries what a codec wrote, uint8 [bytes]."""
    return Array(payload.dtype.name, payload.shape, STYPE, payload.tobytes())


def read(array: Array) -> AnyArray:
    """Return what a codec is to decode, sent by another process; read-only, and not copied.

    Of an array of ours only the bytes count, whatever dtype and shape it claims. Raises LayoutError for what is neither
    ours nor in NumPy's format.
    """
    if array.stype == STYPE:
        return np.frombuffer(array.data, np.uint8)
    if array.stype.startswith(KIND):
        raise LayoutError(
            "malformed",
            f"The update is of the kind '{wire.one_line(array.stype, 60)}', but '{STYPE}' is spoken here: run the same "
            "version of fedkeras on server and clients.",
        )
    return wire.decode(array)
