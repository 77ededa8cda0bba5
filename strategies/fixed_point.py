"""Sums of weighted updates that do not depend on order: exact whole numbers instead of rounding floats.

Each ``weight * delta`` is rounded once to a multiple of 2^-32 and added exactly. Such addition is associative, so the
result is the same to the bit for any order of replies, any packing of clients into messages and any tree of partial
sums. The weights are kept one by one and added with `math.fsum`, which is exactly rounded, so order-free too.

Error: with n updates of total weight W the mean is off by at most 2^-33 * n / W before it is rounded to float32, as
long as ``weight * delta`` itself is exact in float64 (integer weights up to 2^29); other weights add a relative 2^-53.
Range: the sum of ``weight * max|delta|`` must stay below 2^31. That is checked before anything is added, with the very
integers that are added, so the check is exact and no sum can wrap around.

Rounding by a cast to int64 takes NumPy as long as all else together. So `ROUNDER` is added instead: from 2^52 to 2^53
the distance of float64 numbers is 1, so that the addition itself rounds, halves to even as `numpy.rint` does, and
leaves the whole number in the last bits: those of ``ROUNDER + x``, read as int64, are those of `ROUNDER` plus the
rounded x. What all updates together have too much, `_settle` subtracts (int64 wraps around: no bit is lost).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.errors import LayoutError

FRACTION_BITS = 32
SCALE = 2.0**FRACTION_BITS
MIN_WEIGHT = 2.0**-16
MAX_WEIGHT = 2.0**53
BLOCK = 70_000  # elements at a time: the temporary, 0.5 MiB, stays in a core's cache, and calls cost little beside it
ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = int(np.float64(ROUNDER).view(np.int64))
_ROUNDED_BELOW = 2**51  # where ROUNDER + x stays between 2^52 and 2^53
_INT64_MAX = 2**63 - 1

FloatVector = npt.NDArray[np.float32]
WholeNumbers = npt.NDArray[np.int64]


def share(num_clients: int) -> float:
    """Return how large ``weight * max|delta|`` of each of so many clients may be so that their sum never overflows."""
    return 2.0**30 / num_clients


def largest_absolute(values: WholeNumbers | FloatVector) -> float | int:
    """Return the largest absolute value, 0 of none; NaN or infinite where one of the values is."""
    if not values.size:
        return 0
    highest: float | int = np.maximum.reduce(values).item()  # NaN comes through both
    lowest: float | int = np.minimum.reduce(values).item()
    return max(highest, -lowest)


class FixedPointSum:
    """The exact sum of ``weight * delta`` over clients, with temporaries of one block of `BLOCK` elements.

    ``weights`` holds the weight of each update added, in the order of addition. Sums that were merged or have travelled
    share their numbers in memory until one of them has to change.
    """

    def __init__(self, size: int) -> None:
        self.size = size  # length of the vectors
        self.weights: list[float] = []
        self._bound = 0  # of the absolute values of _total, as a Python integer: it cannot wrap around
        self._total: WholeNumbers | None = None  # while nothing was added
        self._excess = 0  # by which each number in _total is too large, modulo 2^64
        self._room: npt.NDArray[np.float64] | None = None  # for a block of temporary numbers
        self._shared = False  # whether _total may be seen by others, so that it must not be written into
        self._largest: int | None = None  # of the absolute values of _total, where that is known exactly

    @property
    def count(self) -> int:
        """Number of updates in the sum."""
        return len(self.weights)

    def total_weight(self) -> float:
        """Sum of the weights, exactly rounded."""
        return math.fsum(self.weights)

    def add(self, delta: FloatVector, weight: float, largest: float | None = None) -> None:
        """Add ``weight * delta``; either all of it is added or, when this raises, nothing.

        ``largest`` is max|delta|, where the caller knows it already. Raises LayoutError for a wrong shape or dtype or a
        weight outside [2^-16, 2^53], ValueError for a delta that is not finite, OverflowError when the sum could leave
        its range.
        """
        self._check(delta, weight)
        largest = largest_absolute(delta) if largest is None else largest
        if not math.isfinite(largest):
            raise ValueError("An update that holds NaN or an infinite value cannot be added.")
        factor = weight * SCALE  # exact: a power of two
        highest = round(factor * largest)  # rounds to even as np.rint does
        bound = self._raised_bound(highest)
        self._add_rounded(delta, factor, by_rounder=highest < _ROUNDED_BELOW)
        self._bound, self._largest = bound, None
        self.weights.append(float(weight))

    def merge(self, other: FixedPointSum) -> None:
        """Add another sum of the same size, which stays as it is.

        Raises LayoutError for another size, OverflowError when the sum could leave its range, and then adds nothing.
        """
        if other.size != self.size:
            raise LayoutError("shape", f"A sum of {self.size} elements cannot take in one of {other.size}.")
        bound = self._raised_bound(other._bound)
        mine, theirs = self._settle(), other._settle()
        if mine is None:
            self._total, self._shared, other._shared = theirs, True, True
        elif theirs is not None:
            self._total, self._shared = np.add(mine, theirs, out=None if self._shared else mine), False
        self._bound, self._largest = bound, None
        self.weights.extend(other.weights)

    def mean(self) -> FloatVector:
        """Return the weighted mean [size], float32. Raises ValueError when nothing was added."""
        if not self.weights:
            raise ValueError("The mean of no updates is not defined.")
        return self.divided_by(self.total_weight())

    def divided_by(self, divisor: float) -> FloatVector:
        """Return sum / divisor [size], float32: for a rule that divides by something else than the weights' sum."""
        quotient = np.empty(self.size, dtype=np.float32)
        for block, values in self._scaled_blocks(divisor * SCALE):
            quotient[block] = values
        return quotient

    def largest(self) -> float:
        """Return the largest absolute value of the sum."""
        if self._largest is None:
            self._largest = int(largest_absolute(self._numbers()))
        return self._largest / SCALE

    def norm(self) -> float:
        """Return the Euclidean norm of the sum."""
        squares = (float(np.sum(np.square(values, out=values))) for _, values in self.blocks())
        return math.sqrt(math.fsum(squares))

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        """Yield the sum in float64, block by block; the blocks share their memory and may be written over."""
        return self._scaled_blocks(SCALE)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the sum as arrays that can travel: ``total`` int64 [size] and ``weights`` float64 [count].

        They stay as they are whatever is added later.
        """
        self._total, self._shared = self._numbers(), True
        return {"total": self._total, "weights": np.asarray(self.weights, dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], size: int) -> FixedPointSum:
        """Take over what `to_arrays` gave, in another process. ``total`` is not copied: it must not change any more.

        Nothing that is sent is believed: raises LayoutError for missing arrays, a wrong shape or dtype, or weights
        that could not have been added. The bound is found anew from the numbers themselves.
        """
        if set(arrays) != {"total", "weights"}:
            raise LayoutError("malformed", f"A sum consists of 'total' and 'weights', but {sorted(arrays)} were given.")
        total: npt.NDArray[Any] = arrays["total"]
        weights = arrays["weights"]
        if total.dtype != np.int64 or weights.dtype != np.float64:
            raise LayoutError("dtype", f"A sum is int64 and float64, but {total.dtype} and {weights.dtype} were given.")
        if total.shape != (size,) or weights.ndim != 1:
            raise LayoutError("shape", f"A sum of {size} elements cannot be read from the shape {total.shape}.")
        result = cls(size)
        result._total, result._shared = total, True
        result.weights = [_checked(float(weight)) for weight in weights.tolist()]
        result._bound = result._largest = int(largest_absolute(total))
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

    def _add_rounded(self, delta: FloatVector, factor: float, by_rounder: bool) -> None:
        total = self._writable()
        for block, values in self._temporaries():
            sums = total[block]
            np.copyto(values, delta[block])  # then multiplied in place: faster than a product of mixed types
            np.multiply(values, factor, out=values)
            np.add(sums, _with_rounder(values) if by_rounder else np.rint(values).astype(np.int64), out=sums)
        self._excess += _ROUNDER_BITS if by_rounder else 0

    def _writable(self) -> WholeNumbers:
        """Return the numbers, with their excess, as an array that is nobody else's."""
        if self._total is None:
            self._total = np.zeros(self.size, dtype=np.int64)
        elif self._shared:
            self._total = self._total.copy()
        self._shared = False
        return self._total

    def _settle(self) -> WholeNumbers | None:
        """Take the excess out of the numbers, which are nobody else's as long as there is any, and return them."""
        if self._total is not None and self._excess:
            np.subtract(self._total, np.uint64(self._excess % 2**64).astype(np.int64), out=self._total)
            self._excess = 0
        return self._total

    def _numbers(self) -> WholeNumbers:
        numbers = self._settle()
        return np.zeros(self.size, dtype=np.int64) if numbers is None else numbers

    def _scaled_blocks(self, divisor: float) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        """Yield the numbers divided, as float64, block by block in the same memory.

        They are multiplied by the reciprocal, which is as exact (to 2^-52) and takes a fifth of the time.
        """
        numbers, factor = self._numbers(), 1.0 / divisor
        for block, values in self._temporaries():
            np.copyto(values, numbers[block], casting="same_kind")
            np.multiply(values, factor, out=values)
            yield block, values

    def _temporaries(self) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        """Yield the blocks, each with room for its numbers in float64, which is the same memory each time."""
        if self._room is None:
            self._room = np.empty(min(self.size, BLOCK), dtype=np.float64)
        for start in range(0, self.size, BLOCK):
            block = slice(start, min(start + BLOCK, self.size))
            yield block, self._room[: block.stop - block.start]


def _with_rounder(values: npt.NDArray[np.float64]) -> WholeNumbers:
    """Return the values, which are written over, rounded, plus `_ROUNDER_BITS`."""
    return np.add(values, ROUNDER, out=values).view(np.int64)


def _checked(weight: float) -> float:
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:  # false for NaN too
        raise LayoutError("weight", f"The weight of an update must be within [2^-16, 2^53], but is {weight}.")
    return weight
