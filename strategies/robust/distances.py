"""Squared distances between the updates of a round, and from a mean of them: all that Krum and its kin look at.

They come from products of vectors, ||x - y||^2 = <x, x> - 2 <x, y> + <y, y>, in float64, block by block of columns: one
matrix product instead of n^2 / 2 differences. Where two vectors are so close that most digits cancel, their products
are taken again from vectors relative to one of them, so that neither a common offset nor one far away hides a distance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from strategies.robust.collected import Doubles, Rows
from strategies.updates import FloatVector

CANCELLED = 2.0**-20  # of the squared norms: what is left of 52 bits then has 32, more than the vectors themselves


def squared_distances(rows: Rows) -> Doubles:
    """Return the squared Euclidean distances, float64 [n, n], symmetric, 0 between equal rows."""
    # The products are too small for the BLAS to gain by threads, which wait for each other busily and at any cost.
    with threadpool_limits(1, "blas"):
        distances, doubtful = _read(_products(rows))
        while doubtful.any():
            pivot = int(doubtful.sum(axis=1).argmax())
            group = [pivot, *np.flatnonzero(doubtful[pivot]).tolist()]
            better, still = _read(_products(rows.take(group), rows.vectors[pivot]))
            # Relative to the pivot nothing cancels in its own row, so that each time some doubt is gone.
            places = np.ix_(group, group)
            distances[places] = np.where(doubtful[places], better, distances[places])
            doubtful[places] &= still
    return distances


def distances_from_mean(squared: Doubles, weights: Doubles) -> Doubles:
    """Return each row's distance from the mean of all by these weights, float64 [n], from their squared distances.

    With shares p that sum to 1, ||x_i - sum p_j x_j||^2 = sum_j p_j D_ij - 1/2 sum_jk p_j p_k D_jk, for any D of
    squared distances: a mean need not be made to know how far it is.
    """
    shares = weights / weights.sum()
    to_rows = squared @ shares
    distances: Doubles = np.sqrt(np.maximum(to_rows - shares @ to_rows / 2, 0.0))
    return distances


def _products(rows: Rows, origin: FloatVector | None = None) -> Doubles:
    """Return the scalar products of all pairs of rows, float64 [n, n], relative to ``origin`` where one is given."""
    products = np.zeros((len(rows), len(rows)))
    for part, block in rows.blocks():
        if origin is not None:
            np.subtract(block, origin[part], out=block)
        products += block @ block.T
    return products


def _read(products: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Return the squared distances, and where too many digits have cancelled to believe them."""
    norms = np.diag(products)
    both = norms[:, None] + norms[None, :]
    distances = np.maximum(both - 2 * products, 0.0)
    np.fill_diagonal(distances, 0.0)
    doubtful = distances < CANCELLED * both
    np.fill_diagonal(doubtful, False)
    return distances, doubtful
