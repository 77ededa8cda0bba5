"""A Flower ``Array`` that is written as bytes only when somebody asks for them.

Flower's ``Array`` writes NumPy's format as it is made and parses it as it is read. Most arrays of a simulation never
leave their process, or travel through shared memory: of these not one byte need be written. To Flower's own engines a
`LazyArray` is an ordinary Array: its bytes, object id, chunks and equality are those that ``Array(ndarray)`` has.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

NUMPY_STYPE = "numpy.ndarray"
FIELDS = ("dtype", "shape", "stype", "data")


class LazyArray(Array):
    """Holds an ndarray, C-contiguous and read-only, in place of its bytes.

    It is not copied (unless its elements lie in another order): whoever gives an array away must not write into it any
    more. Pickled with protocol 5 its buffer stays out of band, and what is read again is lazy too. Raises ValueError
    for Python objects, as Flower does.
    """

    __qualname__ = "Array"  # Flower writes the name of the class into the object's header and looks it up by that

    def __init__(self, array: npt.NDArray[np.generic]) -> None:
        if array.dtype.hasobject:
            raise ValueError("An array of Python objects cannot travel: nothing is ever unpickled.")
        held = np.asarray(array, order="C")
        if held.flags.writeable:
            held = held.view()
            held.flags.writeable = False
        self.__dict__.update(dtype=_name(held.dtype), shape=held.shape, stype=NUMPY_STYPE, held=held)

    @property
    def held(self) -> npt.NDArray[np.generic] | None:
        """The array, read-only; None once a field was set by hand, from when on only the bytes count."""
        return self.__dict__.get("held")

    @functools.cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes in NumPy's format, written when they are first asked for and kept from then on."""
        stream = io.BytesIO()
        np.lib.format.write_array(stream, self.__dict__["held"], allow_pickle=False)
        return stream.getvalue()

    def numpy(self) -> npt.NDArray[Any]:
        """Return the held array itself: not a copy, and read-only."""
        return super().numpy() if self.held is None else self.held

    def __setattr__(self, name: str, value: object) -> None:
        if name in FIELDS:
            self.data  # noqa: B018 - the bytes have to exist before the array goes
            self.__dict__.pop("held", None)
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    __hash__ = None  # type: ignore[assignment]  # as Flower's

    def __reduce__(self) -> tuple[Any, ...]:
        if self.held is None:
            return Array, tuple(getattr(self, name) for name in FIELDS)
        return _lazy, (self.held,)


_name = functools.lru_cache(str)  # NumPy puts the name of a dtype together in Python, which takes 5 us


def _lazy(array: npt.NDArray[np.generic]) -> LazyArray:
    return LazyArray(array)
