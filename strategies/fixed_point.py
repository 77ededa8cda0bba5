"""Sums of weighted updates that do not depend on order: exact 64-bit integers instead of rounding floats.

Each ``weight * delta`` is rounded once to a multiple of 2^-32 and added as an int64. Integer addition is associative,
so the result is the same to the bit for any order of replies, any packing of clients into messages and any tree of
partial sums. The weights are kept one by one and added with `math.fsum`, which is exactly rounded, so order-free too.

Error: with n updates of total weight W the mean is off by at most 2^-33 * n / W before it is rounded to float32, as
long as ``weight * delta`` itself is exact in float64 (integer weights up to 2^29); other weights add a relative 2^-53.
Range: the sum of ``weight * max|delta|`` must stay below 2^31. That is checked before anything is added, with the very
integers that are added, so the check is exact and no sum can wrap around.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from strategies.errors import LayoutError

FRACTION_BITS = 32
SCALE = 2.0**FRACTION_BITS
MIN_WEIGHT = 2.0**-16
MAX_WEIGHT = 2.0**53
BLOCK = 16_384
_INT64_MAX = 2**63 - 1

FloatVector = npt.NDArray[np.float32]


def share(num_clients: int) -> float:
    """Return how large ``weight * max|delta|`` of each of so many clients may be so that their sum never overflows."""
    return 2.0**30 / num_clients


class FixedPointSum:
    """The exact sum of ``weight * delta`` over clients, in place, with temporaries of one block of `BLOCK` elements.

    ``weights`` holds the weight of each update added, in the order of addition.
    """

    def __init__(self, size: int) -> None:
        self._total = np.zeros(size, dtype=np.int64)
        self._bound = 0  # of the absolute values of _total, as a Python integer: it cannot wrap around
        self._scaled = np.empty(min(size, BLOCK), dtype=np.float64)
        self._rounded = np.empty(min(size, BLOCK), dtype=np.int64)
        self.weights: list[float] = []

    @property
    def size(self) -> int:
        """Length of the vectors."""
        return len(self._total)

    @property
    def count(self) -> int:
        """Number of updates in the sum."""
        return len(self.weights)

    def total_weight(self) -> float:
        """Sum of the weights, exactly rounded."""
        return math.fsum(self.weights)

    def add(self, delta: FloatVector, weight: float) -> None:
        """Add ``weight * delta``; either all of it is added or, when this raises, nothing.

        Raises LayoutError for a wrong shape or dtype or a weight outside [2^-16, 2^53], ValueError for a delta that
        is not finite, OverflowError when the sum could leave its range.
        """
        self._check(delta, weight)
        largest = float(max(np.max(delta), -np.min(delta))) if len(delta) else 0.0  # NaN if there is one
        if not math.isfinite(largest):
            raise ValueError("An update that holds NaN or an infinite value cannot be added.")
        factor = weight * SCALE  # exact: a power of two
        bound = self._raised_bound(round(factor * largest))  # rounds to even as np.rint does
        for block in self._blocks():
            scaled, rounded = self._scaled[: block.stop - block.start], self._rounded[: block.stop - block.start]
            np.multiply(delta[block], factor, out=scaled, dtype=np.float64)
            np.rint(scaled, out=scaled)
            np.copyto(rounded, scaled, casting="unsafe")
            np.add(self._total[block], rounded, out=self._total[block])
        self._bound = bound
        self.weights.append(float(weight))

    def merge(self, other: FixedPointSum) -> None:
        """Add another sum of the same size, which stays as it is.

        Raises LayoutError for another size, OverflowError when the sum could leave its range, and then adds nothing.
        """
        if other.size != self.size:
            raise LayoutError("shape", f"A sum of {self.size} elements cannot take in one of {other.size}.")
        bound = self._raised_bound(other._bound)
        np.add(self._total, other._total, out=self._total)
        self._bound = bound
        self.weights.extend(other.weights)

    def mean(self) -> FloatVector:
        """Return the weighted mean [size], float32. Raises ValueError when nothing was added."""
        if not self.weights:
            raise ValueError("The mean of no updates is not defined.")
        return self.divided_by(self.total_weight())

    def divided_by(self, divisor: float) -> FloatVector:
        """Return sum / divisor [size], float32: for a rule that divides by something else than the weights' sum."""
        quotient = np.empty(self.size, dtype=np.float32)
        for block in self._blocks():
            np.divide(self._total[block], divisor * SCALE, out=quotient[block], dtype=np.float64, casting="same_kind")
        return quotient

    def largest(self) -> float:
        """Return the largest absolute value of the sum."""
        return self._largest_integer() / SCALE

    def norm(self) -> float:
        """Return the Euclidean norm of the sum."""
        squares = 0.0
        for block in self._blocks():
            values = self._scaled[: block.stop - block.start]
            np.divide(self._total[block], SCALE, out=values)
            squares += float(np.sum(np.square(values, out=values)))
        return math.sqrt(squares)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the sum as arrays that can travel: ``total`` int64 [size], not a copy; ``weights`` float64 [count]."""
        return {"total": self._total, "weights": np.asarray(self.weights, dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], size: int) -> FixedPointSum:
        """Take over what `to_arrays` gave, in another process; ``total`` is copied.

        Nothing that is sent is believed: raises LayoutError for missing arrays, a wrong shape or dtype, or weights
        that could not have been added. The bound is found anew from the numbers themselves.
        """
        if set(arrays) != {"total", "weights"}:
            raise LayoutError("malformed", f"A sum consists of 'total' and 'weights', but {sorted(arrays)} were given.")
        total, weights = arrays["total"], arrays["weights"]
        if total.dtype != np.int64 or weights.dtype != np.float64:
            raise LayoutError("dtype", f"A sum is int64 and float64, but {total.dtype} and {weights.dtype} were given.")
        if total.shape != (size,) or weights.ndim != 1:
            raise LayoutError("shape", f"A sum of {size} elements cannot be read from the shape {total.shape}.")
        result = cls(size)
        result._total[:] = total
        result.weights = [_checked(float(weight)) for weight in weights.tolist()]
        result._bound = result._largest_integer()
        if result._bound > _INT64_MAX or (result._bound and not result.weights):
            raise LayoutError("malformed", "The numbers of a sum are not what any updates could have summed up to.")
        return result

    def _check(self, delta: FloatVector, weight: float) -> None:
        if delta.dtype != np.float32:
            raise LayoutError("dtype", f"An update must be float32, but is {delta.dtype.name}.")
        if delta.shape != (self.size,):
            raise LayoutError("shape", f"An update must have the shape ({self.size},), but has {delta.shape}.")
        _checked(weight)

    def _raised_bound(self, more: int) -> int:
        bound = self._bound + more
        if bound > _INT64_MAX:
            raise OverflowError(
                f"The sum of weight * max|delta| would reach {bound / SCALE:.3g}, but must stay below 2^31: "
                "lower 'max-update-norm' or 'max-client-examples'."
            )
        return bound

    def _largest_integer(self) -> int:
        return max(int(np.max(self._total)), -int(np.min(self._total))) if self.size else 0

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, min(start + BLOCK, self.size)) for start in range(0, self.size, BLOCK))


def _checked(weight: float) -> float:
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:  # false for NaN too
        raise LayoutError("weight", f"The weight of an update must be within [2^-16, 2^53], but is {weight}.")
    return weight
