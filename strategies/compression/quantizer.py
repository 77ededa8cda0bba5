"""How values are written in fewer bits, and floating point numbers as the simplest ways.

float16 rounds to the nearest, which is biased, by at most 2^-11 of a value from 6.1e-5 on and by 2^-25 below; what is
larger than 65504 becomes 65504.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from strategies.compression.pieces import Bytes, pieces
from strategies.options import Option, Options
from strategies.updates import FloatVector

FLOAT16_MAX = 65504.0


class Quantizer(Protocol):
    """A way to write values."""

    @property
    def wire_id(self) -> int:
        """What names its kind in a payload."""

    @property
    def unbiased(self) -> bool:
        """Whether values come out as they went in on average."""

    @property
    def bits(self) -> int:
        """Bits of each value, without what several values have in common."""

    @property
    def settings(self) -> Mapping[str, Option]:
        """The options it was made from, its name under 'codec-quantization'."""

    def length(self, count: int) -> int:
        """Return how many bytes so many values take."""

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Write values, all of them finite, which are not changed; what is random comes from the seed."""

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Read as many values as there is room for; raises LayoutError for what `write` cannot have written."""


@dataclass(frozen=True)
class Float32:
    """Values as they are."""

    wire_id: ClassVar[int] = 0
    unbiased: ClassVar[bool] = True
    bits: ClassVar[int] = 32

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def settings(self) -> Mapping[str, Option]:
        """The name alone."""
        return {"codec-quantization": "none"}

    def length(self, count: int) -> int:
        """Four bytes a value."""
        return 4 * count

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Return their bytes, lowest first."""
        return values.astype("<f4", copy=False).view(np.uint8)

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Copy them."""
        out[:] = np.frombuffer(data, "<f4")


@dataclass(frozen=True)
class Float16:
    """Values as IEEE half precision, rounded to the nearest, the largest cut off."""

    wire_id: ClassVar[int] = 1
    unbiased: ClassVar[bool] = False
    bits: ClassVar[int] = 16

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def settings(self) -> Mapping[str, Option]:
        """The name alone."""
        return {"codec-quantization": "float16"}

    def length(self, count: int) -> int:
        """Two bytes a value."""
        return 2 * count

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Cut and round, lowest byte first."""
        halves = np.empty(len(values), "<f2")
        for place in pieces(len(values)):
            halves[place] = np.clip(values[place], -FLOAT16_MAX, FLOAT16_MAX)
        return halves.view(np.uint8)

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Widen them."""
        out[:] = np.frombuffer(data, "<f2")
