"""Long vectors a piece at a time, so that temporaries stay in a core's cache, and the random bits that go with them.

The bits come from NumPy's SFC64, the fastest of its generators, as it makes them: such streams never change (NEP 19),
unlike what `numpy.random.Generator` makes of them, so that client and server draw the same with any two versions of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from strategies.seeding import seed_sequence

PIECE = 2**15  # values at a time, a multiple of every block's size: 128 KiB of float32

Bytes = npt.NDArray[np.uint8]


def pieces(count: int, length: int = PIECE) -> Iterator[slice]:
    """Yield the slices of ``length`` elements that make up so many."""
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


class RandomBits:
    """The random bits of one seed for one purpose, in order."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._generator = np.random.SFC64(seed_sequence(seed, 0, "", purpose))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the next uint64 [count]."""
        drawn: npt.NDArray[np.uint64] = self._generator.random_raw(count)
        return drawn

    def halves(self, count: int) -> npt.NDArray[np.uint16]:
        """Return uint16 [count], from whole words."""
        return self.words(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]

    def signs(self, count: int) -> npt.NDArray[np.uint32]:
        """Return uint32 [count] of which only the highest bit, the sign of a float32, is random."""
        bits = np.unpackbits(self.words(-(-count // 64)).astype("<u8", copy=False).view(np.uint8), count=count)
        return bits.astype(np.uint32) << np.uint32(31)
