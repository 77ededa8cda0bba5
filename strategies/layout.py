"""How a model's arrays lie in one flat float32 vector, and the strict way between the two.

An update is one flat vector, so that clipping is one norm and a trimmed mean one sort of columns. The layout remembers
names, shapes and dtypes. Arrays that come from elsewhere must match it exactly: a shape (1,) is not broadcast, a
float64 array is not taken for a float32 one, and nothing but real numbers is let in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from strategies.errors import LayoutError
from strategies.updates import AnyArray, FloatVector

__all__ = ["LayoutError", "ModelLayout"]

DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)


@dataclass(frozen=True)
class ModelLayout:
    """Names, shapes and dtypes of a model's arrays, in their order; equal and hashable by value.

    ``dtypes`` are NumPy's names ("float32"), one of `DTYPES`. Raises LayoutError where the three do not agree.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.shapes) == len(self.dtypes):
            counts = f"{len(self.names)} names, {len(self.shapes)} shapes and {len(self.dtypes)} dtypes"
            raise LayoutError("malformed", f"A layout has as many names as shapes and dtypes, but has {counts}.")
        if len(set(self.names)) != len(self.names):
            raise LayoutError("malformed", f"The names of a model's arrays must differ, but are {list(self.names)}.")
        for name, dtype in zip(self.names, self.dtypes, strict=True):
            if dtype not in DTYPES:
                raise LayoutError("dtype", f"The array '{name}' is {dtype}, but must hold one of {sorted(DTYPES)}.")
        if self.size == 0:
            raise LayoutError("malformed", "A model must have at least one parameter, but this one has none.")

    @classmethod
    def from_arrays(cls, arrays: Sequence[AnyArray], names: Sequence[str] | None = None) -> ModelLayout:
        """Describe these arrays; without names they are called "0", "1", ..."""
        for index, array in enumerate(arrays):
            _require_array(array, str(index) if names is None or index >= len(names) else names[index])
        return cls(
            names=tuple(str(index) for index in range(len(arrays))) if names is None else tuple(names),
            shapes=tuple(array.shape for array in arrays),
            dtypes=tuple(array.dtype.name for array in arrays),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each array."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def _native(self) -> tuple[np.dtype[np.generic], ...]:
        return tuple(np.dtype(name) for name in self.dtypes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each array starts in the flat vector."""
        return (0, *accumulate(self.sizes))[: len(self.sizes)]

    @cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all arrays in their own dtypes."""
        return sum(native.itemsize * size for native, size in zip(self._native, self.sizes, strict=True))

    def flatten(self, arrays: Sequence[AnyArray]) -> FloatVector:
        """Copy the arrays into one float32 vector [size]; integers beyond 2^24 are rounded to the nearest float32."""
        return self._fill(arrays, lambda array, _, out: np.copyto(out, array, casting="unsafe"))

    def delta(self, local: Sequence[AnyArray], global_: FloatVector) -> FloatVector:
        """Return ``local - global_`` as one float32 vector [size], each element rounded once.

        What is not finite in ``local`` stays so: admission rejects it. Raises LayoutError as `flatten` does.
        """
        start = self._vector(global_)

        def subtract(array: AnyArray, place: slice, out: FloatVector) -> None:
            if array.dtype == np.float32:
                np.subtract(array, start[place], out=out)
            else:
                np.subtract(array, start[place], out=out, dtype=np.float64, casting="same_kind")

        return self._fill(local, subtract)

    def unflatten(self, vector: FloatVector) -> list[AnyArray]:
        """Return the arrays of a flat vector in their shapes and dtypes, read-only.

        So whoever turns a round's weights into tensors has to do so once, as nobody can change them. They are copies,
        but for float32 arrays of a vector that cannot change either, which are views of it. Integers are rounded to the
        nearest and clipped to their range, float16 is clipped to its range, a bool is true from 0.5 on.
        """
        flat = self._vector(vector)
        parts = zip(self.offsets, self.sizes, self.shapes, self.dtypes, strict=True)
        return [_fixed(_cast(flat[start : start + size], dtype)).reshape(shape) for start, size, shape, dtype in parts]

    def _fill(self, arrays: Sequence[AnyArray], put: Callable[[AnyArray, slice, FloatVector], None]) -> FloatVector:
        self._check(arrays)
        flat = np.empty(self.size, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for array, start, size in zip(arrays, self.offsets, self.sizes, strict=True):
                place = slice(start, start + size)
                put(array.reshape(-1), place, flat[place])
        return flat

    def _check(self, arrays: Sequence[AnyArray]) -> None:
        if len(arrays) != len(self.names):
            raise LayoutError("malformed", f"The model has {len(self.names)} arrays, but {len(arrays)} were given.")
        parts = zip(arrays, self.names, self.shapes, self.dtypes, self._native, strict=True)
        for array, name, shape, dtype, native in parts:
            _require_array(array, name)
            if array.dtype != native and array.dtype.name != dtype:  # the name, slow to make, covers other byte orders
                raise LayoutError("dtype", f"The array '{name}' must be {dtype}, but is {array.dtype.name}.")
            if array.shape != shape:
                raise LayoutError("shape", f"The array '{name}' must have the shape {shape}, but has {array.shape}.")

    def _vector(self, vector: FloatVector) -> FloatVector:
        _require_array(vector, "flat vector")
        if vector.shape != (self.size,):
            raise LayoutError("shape", f"The flat vector must have the shape ({self.size},), but has {vector.shape}.")
        if vector.dtype != np.float32:
            raise LayoutError("dtype", f"The flat vector must be float32, but is {vector.dtype.name}.")
        return vector


def _require_array(array: object, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise LayoutError("malformed", f"The array '{name}' must be a NumPy array, but is a {type(array).__name__}.")


def _fixed(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array


def _cast(values: FloatVector, dtype: str) -> npt.NDArray[np.generic]:
    target = np.dtype(dtype)
    if target.kind == "b":
        return values >= 0.5
    if target == np.float16:
        limits = np.finfo(np.float16)
        return np.clip(values, limits.min, limits.max).astype(np.float16)
    if target.kind == "f":
        return values.astype(target, copy=values.flags.writeable)
    if not np.isfinite(values).all():
        raise LayoutError("malformed", f"A value that is not finite cannot become {dtype}.")
    low, high = _float_range(target)
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(target)


def _float_range(target: np.dtype[np.generic]) -> tuple[float, float]:
    """Return the smallest and the greatest float64 that the integer type holds; 2^63 - 1 is not a float64."""
    info = np.iinfo(target)  # type: ignore[type-var]
    high = float(info.max)
    return float(info.min), high if int(high) <= info.max else float(np.nextafter(high, 0))
