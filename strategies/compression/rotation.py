"""A random rotation before values are quantized, which spreads each of them over many, so that none stands out.

Suresh, Yu, Kumar, McMahan: "Distributed Mean Estimation with Limited Communication", 2017, section 3: random signs,
then a Walsh-Hadamard transform; what is quantized is about normally distributed then, whatever the update looked like.
With `Uniform` it stays unbiased. With `Sign` it is DRIVE with the scale that has the least error (Vargaftik, Ben-Basat,
Portnoy, Mendelson, Ben-Itzhak, Mitzenmacher: "DRIVE: One-bit Distributed Mean Estimation", 2021), ||Rx||_1 / d, which
leaves 1 - 2/pi of an update's energy to error feedback; DRIVE's other scale is unbiased only for rotations that are
uniform, which this is not.

What differs from the papers: blocks of 4096 values are rotated by themselves, and what remains in ever smaller powers
of two, so that nothing has to be filled up with zeros. The seed stands in the payload: it is the client's own.
Additions alone, always in the same order, make the transform, so that it is the same to the bit everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.compression.pieces import Bytes, RandomBits, pieces
from strategies.compression.quantizer import Quantizer
from strategies.options import Option
from strategies.seeding import child_seed
from strategies.updates import FloatVector

BLOCK = 4096
LINE = 64  # of a block, seen as a square: both its sides are transformed, so that neighbours in memory are added
SEED_LENGTH = 8
ROTATED = 0x80  # added to the wire id of what is rotated
PURPOSE = "rotation"


@dataclass(frozen=True)
class Rotated:
    """A quantizer of rotated values."""

    quantizer: Quantizer

    @property
    def wire_id(self) -> int:
        """That of the quantizer, marked."""
        return ROTATED | self.quantizer.wire_id

    @property
    def unbiased(self) -> bool:
        """Whether the quantizer is: a rotation is linear."""
        return self.quantizer.unbiased

    @property
    def bits(self) -> int:
        """Those of the quantizer."""
        return self.quantizer.bits

    @property
    def settings(self) -> Mapping[str, Option]:
        """The quantizer's, and that it is rotated."""
        return {**self.quantizer.settings, "codec-rotation": True}

    def length(self, count: int) -> int:
        """Return the quantizer's length and that of the seed."""
        return SEED_LENGTH + self.quantizer.length(count)

    def write(self, values: FloatVector, seed: int) -> Bytes:
        """Rotate a copy and quantize it; the rotation's own seed comes first."""
        own = child_seed(seed, 0, "", PURPOSE)
        rotated = values.copy()
        for part, signs in _parts(rotated, own):
            part.view(np.uint32)[:] ^= signs
            _transform(part)
        return np.concatenate([np.array([own], "<u8").view(np.uint8), self.quantizer.write(rotated, seed)])

    def read(self, data: Bytes, out: FloatVector) -> None:
        """Undo the rotation of what the quantizer reads."""
        own = int(np.frombuffer(data[:SEED_LENGTH], "<u8")[0])
        self.quantizer.read(data[SEED_LENGTH:], out)
        for part, signs in _parts(out, own):
            _transform(part)
            part.view(np.uint32)[:] ^= signs


def _parts(values: FloatVector, seed: int) -> Iterator[tuple[FloatVector, npt.NDArray[np.uint32]]]:
    """Yield views of some values at a time, and the signs to give them."""
    bits = RandomBits(seed, PURPOSE)
    for place in pieces(len(values)):
        part = values[place]
        yield part, bits.signs(len(part))


def _transform(values: FloatVector) -> None:
    """Apply the orthonormal Walsh-Hadamard transform, which is its own inverse, in place to each block of a piece."""
    full = len(values) // BLOCK * BLOCK
    squares = values[:full].reshape(-1, LINE, LINE)
    squares *= np.float32(1 / LINE)
    turned = _butterflies(squares).swapaxes(1, 2).copy()
    squares[:] = _butterflies(turned).swapaxes(1, 2)
    while full < len(values):
        size = 1 << (len(values) - full).bit_length() - 1
        rest = values[full : full + size].reshape(1, size, 1)
        rest *= np.float32(1 / math.sqrt(size))
        rest[:] = _butterflies(rest)
        full += size


def _butterflies(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the transform, not normalized, along the second of three axes, a power of two long; rows is written over.

    Sums and differences go from one array to the other, step by step.
    """
    step, (count, length, width), other = 1, rows.shape, np.empty_like(rows)
    while step < length:
        shape = count, length // (2 * step), 2, step * width
        pairs, results = rows.reshape(shape), other.reshape(shape)
        np.add(pairs[:, :, 0], pairs[:, :, 1], out=results[:, :, 0])
        np.subtract(pairs[:, :, 0], pairs[:, :, 1], out=results[:, :, 1])
        rows, other, step = other, rows, 2 * step
    return rows
