"""Stochastic uniform quantization: a few levels between the largest value and its negative, rounded without bias.

Alistarh, Grubic, Li, Tomioka, Vojnovic: "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
2017, section 3.1: a value between two levels goes to either with the chance that makes it right on average. With s
levels above zero, E||Q(x) - x||^2 <= min(n / s^2, sqrt(n) / s) ||x||^2 for every block of n values.

What differs from section 3.1: levels reach to the block's largest value and not to its norm, as in the paper's own
experiments. The bound holds all the more, and with n = 512 the levels lie some seven times closer together.
The levels of b bits are s = 2^(b-1) - 1 above zero, zero, and as many below, so that zeros stay zeros; 1 bit has only
the two outermost levels (Suresh, Yu, Kumar, McMahan: "Distributed Mean Estimation with Limited Communication", 2017,
section 2.1) and keeps the first half of the bound alone. In place of the paper's Elias code every value takes b bits:
what can still be saved is left to the lossless stage.

Chances are multiples of 2^-16, so that rounding is unbiased up to 2^-15 of the distance between two levels. A block
whose largest value is below 2^-100 is sent as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from strategies.compression.bits import Unsigned, pack, packed_length, unpack
from strategies.compression.pieces import Bytes, RandomBits, pieces
from strategies.compression.scales import read_scales, scales_length
from strategies.errors import LayoutError, StrategyError
from strategies.options import Option, Options, integer
from strategies.updates import FloatVector

BLOCK = 512  # values with one scale, which adds 1/16 bit to each
FRACTION = 16  # bits of chance
SMALLEST = 2.0**-100
PURPOSE = "rounding"


@dataclass(frozen=True)
class Uniform:
    """Levels of ``bits`` bits, 1 to 8."""

    wire_id: ClassVar[int] = 2
    unbiased: ClassVar[bool] = True
    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise StrategyError(
                f"The key 'codec-bits' is {self.bits}, but must be from 1 to 8 (with more, set 'codec-quantization' to "
                "'float16' or 'none')."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'codec-bits'."""
        return cls(integer(options, "codec-bits", 8))

    @property
    def settings(self) -> Mapping[str, Option]:
        """The bits."""
        return {"codec-quantization": "uniform", "codec-bits": self.bits}

    @property
    def _top(self) -> int:
        """The code of the highest level; the lowest has 0."""
        return 2 * (2 ** (self.bits - 1) - 1) or 1

    def length(self, count: int) -> int:
        """Return the length of the scales and the packed levels."""
        return scales_length(count, BLOCK) + packed_length(count, self.bits)

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Round to levels; the scales come first."""
        random = RandomBits(seed, PURPOSE)
        scales = np.empty(-(-len(values) // BLOCK), "<f4")
        written = np.empty(self.length(len(values)), np.uint8)
        codes = written[scales_length(len(values), BLOCK) :]
        for place in pieces(len(values)):
            rows = _rows(values[place])
            own = scales[place.start // BLOCK : -(-place.stop // BLOCK)]
            own[:] = np.maximum(rows.max(axis=1), -rows.min(axis=1))
            own[own < SMALLEST] = 0
            start = place.start * self.bits // 8
            packed = pack(self._rounded(rows, own, random)[: place.stop - place.start], self.bits)
            codes[start : start + len(packed)] = packed
        written[: scales_length(len(values), BLOCK)] = scales.view(np.uint8)
        return written

    def _rounded(self, rows: FloatVector, scales: FloatVector, random: RandomBits) -> Bytes:
        """Return the codes of rows, which are written over: floor(level + chance), in fixed point."""
        unit = float(1 << FRACTION) * self._top / 2
        factors = np.divide(unit, scales, out=np.zeros(len(scales)), where=scales > 0).astype(np.float32)
        rows *= factors[:, None]
        rows += np.float32(unit)
        np.rint(rows, out=rows)
        np.clip(rows, 0, 2 * unit, out=rows)  # the factor was rounded
        levels = rows.reshape(-1).astype(np.int32)
        levels += random.halves(len(levels))
        levels >>= FRACTION
        return levels.astype(np.uint8)

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Turn levels back into values."""
        scales = read_scales(data, len(out), BLOCK)
        codes, middle = data[scales_length(len(out), BLOCK) :], np.float32(self._top / 2)
        for place in pieces(len(out)):
            levels = unpack(codes, len(out), self.bits, place)
            if levels.max() > self._top:
                raise LayoutError("malformed", f"An update of {self.bits} bits has a level above {self._top}.")
            rows = _rows(levels)
            rows -= middle
            rows /= middle
            rows *= scales[place.start // BLOCK : -(-place.stop // BLOCK), None]
            out[place] = rows.reshape(-1)[: place.stop - place.start]


def _rows(values: FloatVector | Unsigned) -> FloatVector:
    """Return the values as float32 in rows of a block, the last filled up with zeros: a copy."""
    rows = np.zeros((-(-len(values) // BLOCK), BLOCK), np.float32)
    rows.reshape(-1)[: len(values)] = values
    return rows
