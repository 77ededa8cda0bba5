"""Whole numbers of any width in as few bits: packed and unpacked in NumPy, without a loop over the numbers.

A number of more than 8 bits is split: each of its lower bytes stands in a plane of its own, and only the bits above
them are packed. Those are packed eight numbers at a time, which NumPy reads as one word of 64 bits: three steps move
neighbours together, first bytes to pairs, then pairs to fours, then fours to eights. Lowest bits come first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from strategies.compression.pieces import Bytes

Unsigned = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]

GROUP = 8


def packed_length(count: int, width: int) -> int:
    """Return how many bytes so many numbers of ``width`` bits take."""
    planes, rest = divmod(width, 8)
    return count * planes + -(-count * rest // 8)


def pack(numbers: npt.NDArray[np.integer], width: int) -> Bytes:
    """Write numbers below 2^width, ``width`` from 0 to 32: uint8 [packed_length]."""
    planes, rest = divmod(width, 8)
    parts = [(numbers >> 8 * plane).astype(np.uint8) for plane in range(planes)]
    if rest:
        parts.append(_pack_bits((numbers >> 8 * planes).astype(np.uint8), rest))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def unpack(data: Bytes, count: int, width: int, place: slice) -> Unsigned:
    """Read the numbers at ``place`` of the ``count`` that `pack` wrote: uint8, or uint32 where they are wider."""
    planes, rest = divmod(width, 8)
    if width <= 8:
        return data[place] if planes else _unpack_bits(data, rest, place)
    numbers = np.zeros(place.stop - place.start, np.uint32)
    for plane in range(planes):
        own = data[plane * count : (plane + 1) * count]
        numbers |= own[place].astype(np.uint32) << np.uint32(8 * plane)
    if rest:
        numbers |= _unpack_bits(data[planes * count :], rest, place).astype(np.uint32) << np.uint32(8 * planes)
    return numbers


def _steps(width: int) -> list[tuple[np.uint64, np.uint64, np.uint64]]:
    """Return, for each step of packing, how far the upper half of a lane moves, and the bits of both halves before."""
    steps = []
    for half in (8, 16, 32):
        used = width * half // 8
        lower = sum(((1 << used) - 1) << lane for lane in range(0, 64, 2 * half))
        steps.append((np.uint64(half - used), np.uint64(lower), np.uint64(lower << half)))
    return steps


def _pack_bits(numbers: Bytes, width: int) -> Bytes:
    groups = -(-len(numbers) // GROUP)
    padded = np.zeros(groups * GROUP, np.uint8)
    padded[: len(numbers)] = numbers
    words = padded.view("<u8")
    for shift, lower, upper in _steps(width):
        words[:] = (words & lower) | ((words & upper) >> shift)
    packed = words.view(np.uint8).reshape(groups, 8)[:, :width].reshape(-1)
    return packed[: packed_length(len(numbers), width)]


def _unpack_bits(data: Bytes, width: int, place: slice) -> Bytes:
    if width == 0:
        return np.zeros(place.stop - place.start, np.uint8)
    first, last = place.start // GROUP, -(-place.stop // GROUP)
    own = data[first * width : last * width]
    padded = np.zeros((last - first) * width, np.uint8)
    padded[: len(own)] = own
    spread = np.zeros((last - first, 8), np.uint8)
    spread[:, :width] = padded.reshape(-1, width)
    words = spread.view("<u8").reshape(-1)
    for shift, lower, upper in reversed(_steps(width)):
        words = (words & lower) | ((words << shift) & upper)
    return words.astype("<u8", copy=False).view(np.uint8)[place.start - first * GROUP : place.stop - first * GROUP]
