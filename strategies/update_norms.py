"""How long updates are, as a run tells it of each round: measured in one pass, where the update is.

A partial sum does not show how long its updates were. So whoever adds them up tells that of each client as a metric
(`wire.UPDATE_NORM`), where the server asks for it: under privacy it does not. Like all metrics it is only reported.

Admission and clipping go by `strategies.admission.norm`, which is exact and takes several times as long. Here squares
are added in float32 by the dot product of BLAS, block by block (to a relative 1e-6); a block is shorter than what
OpenBLAS gives to several threads (10,000), as with their number the last bits would change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from strategies import wire
from strategies.admission import norm
from strategies.updates import MAX_METRIC, FloatVector

BLOCK = 8192
LEAST = 1e-30
"""The smallest sum of squares that is taken: each square is off by up to 1e-45, the least that float32 tells apart."""


def told_norm(delta: FloatVector) -> float:
    """Return the Euclidean norm of a flat update, of any length and of any finite values."""
    whole = len(delta) // BLOCK * BLOCK
    blocks, rest = delta[:whole].reshape(-1, BLOCK), delta[whole:]
    with np.errstate(over="ignore"):
        squares = math.fsum([*np.vecdot(blocks, blocks).tolist(), float(np.dot(rest, rest))])
    return math.sqrt(squares) if LEAST < squares < math.inf else norm(delta)  # what float32 cannot square


def norms_told(metrics: Iterable[Mapping[str, float]]) -> list[float]:
    """Return the norms that clients of a partial sum have told; what none can be is left out."""
    told = (row.get(wire.UPDATE_NORM, math.nan) for row in metrics)
    return [value for value in told if 0 <= value <= MAX_METRIC]  # false for NaN
