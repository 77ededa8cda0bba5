"""Sign with norm: of each value its sign, and for all the values of a block their mean size.

Karimireddy, Rebjock, Stich, Jaggi: "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", 2019,
algorithm 1 (EF-signSGD): x becomes ||x||_1 / d * sign(x). Strongly biased, so that it needs error feedback.

What differs from the paper: every 4096 values have their own mean, as layers and their parts are of different size
(Zheng, Huang, Kwok: "Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback", 2019),
which adds 1/128 bit to a value. A zero has the sign +: one bit has no third case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from strategies.compression.bits import packed_length, unpack
from strategies.compression.pieces import Bytes, pieces
from strategies.compression.scales import read_scales, scales_length
from strategies.options import Option, Options
from strategies.updates import FloatVector

BLOCK = 4096


@dataclass(frozen=True)
class Sign:
    """Signs and mean magnitudes."""

    wire_id: ClassVar[int] = 3
    unbiased: ClassVar[bool] = False
    bits: ClassVar[int] = 1

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def settings(self) -> Mapping[str, Option]:
        """The name alone."""
        return {"codec-quantization": "sign"}

    def length(self, count: int) -> int:
        """Return the length of the means and of one bit a value."""
        return scales_length(count, BLOCK) + packed_length(count, 1)

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Write the means, then the signs: 1 where a value is not negative."""
        means = np.empty(-(-len(values) // BLOCK), "<f4")
        for place in pieces(len(values)):
            means[place.start // BLOCK : -(-place.stop // BLOCK)] = _means(np.abs(values[place]))
        return np.concatenate([means.view(np.uint8), np.packbits(values >= 0, bitorder="little")])

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Give every value of a block the same size."""
        means = read_scales(data, len(out), BLOCK)
        signs = data[scales_length(len(out), BLOCK) :]
        for place in pieces(len(out)):
            own = means[place.start // BLOCK : -(-place.stop // BLOCK)]
            values = unpack(signs, len(out), 1, place).astype(np.float32)
            values *= 2
            values -= 1
            values *= np.repeat(own, BLOCK)[: len(values)]
            out[place] = values


def _means(sizes: FloatVector) -> npt.NDArray[np.float64]:
    """Return the mean of each block, the last of which may be shorter."""
    starts = np.arange(0, len(sizes), BLOCK)
    means: npt.NDArray[np.float64] = np.add.reduceat(sizes, starts, dtype=np.float64)
    return means / np.diff(starts, append=len(sizes))
