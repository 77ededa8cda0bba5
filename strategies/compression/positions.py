"""Where the values of a sparse update stand: written as gaps between them or as a bitmap, whatever is smallest.

Golomb, "Run-Length Encodings", 1966; Rice and Plaunt, "Adaptive Variable-Length Coding for Efficient Compression of
Spacecraft Television Data", 1971: of a gap the lowest ``width`` bits are written as they are and what is above them in
unary. For a share p of values at random places this takes 8.11 bits a position at p = 0.01, where the entropy H(p) / p
is 8.08, and nowhere below p = 0.1 more than 2.2 % above it (Golomb's own code, whose divisor need not be a power of
two, would save at most 0.09 bits).

What differs: all lowest bits come first and all that is unary afterwards, so that NumPy reads either at once. Gaps that
are all about as long are shorter in a fixed width, and of many positions a bitmap is shortest: one bit for each value
there could be. Positions always increase, however they are read, so that only the last has to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from strategies.compression.bits import pack, packed_length, unpack
from strategies.compression.pieces import PIECE, Bytes, pieces
from strategies.errors import LayoutError

Positions = npt.NDArray[np.int64]

SOME = PIECE // 4  # positions at a time: they are twice as wide as values, and several are held of each


class Coder(Protocol):
    """One way to write positions; ``width`` and ``unary`` are what a header tells of it."""

    wire_id: ClassVar[int]

    @property
    def width(self) -> int:
        """Bits of each gap that are written as they are."""

    @property
    def unary(self) -> int:
        """Bits in unary, of all gaps together."""

    def length(self, size: int, count: int) -> int:
        """Return how many bytes ``count`` positions below ``size`` take."""

    def write(self, positions: Positions, size: int) -> Bytes:
        """Write increasing positions below ``size``."""

    def read(self, data: Bytes, size: int, count: int) -> Iterator[Positions]:
        """Read them, some at a time; they increase, but may be too large, too many or too few."""


@dataclass(frozen=True)
class NoPositions:
    """Nothing is written: there is a value everywhere, or where the server knows."""

    wire_id: ClassVar[int] = 0
    width: int = 0
    unary: int = 0

    def length(self, size: int, count: int) -> int:
        """No bytes."""
        return 0

    def write(self, positions: Positions, size: int) -> Bytes:
        """Write nothing."""
        return np.zeros(0, np.uint8)

    def read(self, data: Bytes, size: int, count: int) -> Iterator[Positions]:
        """Yield everywhere."""
        for place in pieces(size, SOME):
            yield np.arange(place.start, place.stop)


@dataclass(frozen=True)
class FixedGaps:
    """Every gap in ``width`` bits."""

    wire_id: ClassVar[int] = 1
    width: int
    unary: int = 0

    @classmethod
    def fitted(cls, gaps: Positions) -> FixedGaps:
        """Return the code that is just wide enough."""
        return cls(int(gaps.max(initial=0)).bit_length())

    def length(self, size: int, count: int) -> int:
        """Return the length of the packed gaps."""
        return packed_length(count, self.width)

    def write(self, positions: Positions, size: int) -> Bytes:
        """Pack the gaps."""
        return pack(gaps_of(positions), self.width)

    def read(self, data: Bytes, size: int, count: int) -> Iterator[Positions]:
        """Add up the gaps."""
        before = -1
        for place in pieces(count, SOME):
            positions = before + np.cumsum(unpack(data, count, self.width, place).astype(np.int64) + 1)
            before = int(positions[-1])
            yield positions


@dataclass(frozen=True)
class GolombGaps:
    """Gaps in Golomb-Rice code: ``width`` bits of each, and ``unary`` bits for what is above of all."""

    wire_id: ClassVar[int] = 2
    width: int
    unary: int

    @classmethod
    def fitted(cls, gaps: Positions) -> GolombGaps:
        """Return the shortest of its kind: its width is about that of the mean gap."""
        mean = int(gaps.mean()) if len(gaps) else 0
        near = range(max(0, mean.bit_length() - 2), mean.bit_length() + 1)
        codes = [cls(width, int((gaps >> width).sum()) + len(gaps)) for width in near]
        return min(codes, key=lambda code: code.width * len(gaps) + code.unary)

    def length(self, size: int, count: int) -> int:
        """Return the length of both parts."""
        return packed_length(count, self.width) + packed_length(self.unary, 1)

    def write(self, positions: Positions, size: int) -> Bytes:
        """Write the lowest bits of all gaps, then a 1 for each gap after as many 0 as are above them."""
        gaps = gaps_of(positions)
        bits = np.zeros(self.unary, np.uint8)
        bits[np.cumsum((gaps >> self.width) + 1) - 1] = 1
        lowest = pack(gaps & ((1 << self.width) - 1), self.width)
        return np.concatenate([lowest, np.packbits(bits, bitorder="little")])

    def read(self, data: Bytes, size: int, count: int) -> Iterator[Positions]:
        """Put both parts of each gap together and add them up."""
        unary = data[packed_length(count, self.width) :]
        before, end, first = -1, -1, 0
        for ends in ones(unary):
            last = first + len(ends)
            if last > count or ends[-1] >= self.unary:
                raise LayoutError("malformed", f"The gaps of an update are more than its {count} values.")
            above = np.diff(ends, prepend=end) - 1
            if above.max() > size >> self.width:
                raise LayoutError("malformed", f"A gap of an update is wider than the {size} values of the model.")
            gaps = above << self.width
            gaps |= unpack(data, count, self.width, slice(first, last))
            positions = before + np.cumsum(gaps + 1)
            before, end, first = int(positions[-1]), int(ends[-1]), last
            yield positions


@dataclass(frozen=True)
class Bitmap:
    """One bit for each place."""

    wire_id: ClassVar[int] = 3
    width: int = 0
    unary: int = 0

    def length(self, size: int, count: int) -> int:
        """Return the length of ``size`` bits."""
        return packed_length(size, 1)

    def write(self, positions: Positions, size: int) -> Bytes:
        """Set the bits at the positions."""
        bits = np.zeros(size, np.bool_)
        bits[positions] = True
        return np.packbits(bits, bitorder="little")

    def read(self, data: Bytes, size: int, count: int) -> Iterator[Positions]:
        """Yield where bits are set."""
        return ones(data)


def ones(data: Bytes) -> Iterator[Positions]:
    """Yield where the bits are 1, some at a time."""
    for place in pieces(len(data) * 8, SOME):
        found = np.flatnonzero(np.unpackbits(data[place.start // 8 : -(-place.stop // 8)], bitorder="little"))
        if len(found):
            yield found + place.start


def gaps_of(positions: Positions) -> Positions:
    """Return how many places lie before each position, after the one before it."""
    return np.diff(positions, prepend=-1) - 1


def smallest(positions: Positions, size: int) -> Coder:
    """Return the code in which these positions take the fewest bytes."""
    if len(positions) == size:
        return NoPositions()
    gaps = gaps_of(positions)
    coders: list[Coder] = [Bitmap(), FixedGaps.fitted(gaps), GolombGaps.fitted(gaps)]
    return min(coders, key=lambda coder: coder.length(size, len(positions)))


def checked(positions: Iterator[Positions], size: int, count: int) -> Iterator[Positions]:
    """Yield what is read; raises LayoutError for positions beyond ``size``, and for more or fewer than ``count``."""
    found = 0
    for some in positions:
        found += len(some)
        if some[-1] >= size or found > count:
            raise LayoutError("malformed", f"The positions of an update do not lie within the {size} of the model.")
        yield some
    if found != count:
        raise LayoutError("malformed", f"The update has {count} values, but positions for {found}.")
