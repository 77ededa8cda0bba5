"""The format of a checkpoint: facts as JSON, arrays as they lie in memory, and a checksum over all of it.

    "fedkeras checkpoint 2", {"facts": {...}, "groups": [...], "arrays": [[group, name, dtype, shape, order], ...]},
    bytes of the first array, of the second, ..., CRC-32

(two lines, then bytes; the checksum is the last four, little-endian; dtype as NumPy's ``str``, order "C" or "F").

The checksum is compared before anything else is read: what was cut off, or of which a bit has flipped, is never taken
for a state. (Zip, as in NumPy's npz, has one for each array and none for the list of them.) It is there for what disks
do, and not for what people do: whoever can write here can write a checksum too. It finds every burst of up to 32 bits,
and misses other damage once in 2^32 times; a SHA-256 takes twice as long at best. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from strategies.updates import AnyArray, State

NAME = b"fedkeras checkpoint "
FIRST_LINE = NAME + b"2\n"
CHECKSUM_BYTES = 4


class DamagedError(ValueError):
    """The bytes are no checkpoint that this program can read."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a checkpoint holds: ``facts`` as JSON knows them, and arrays by group and name."""

    facts: Mapping[str, Any]
    groups: Mapping[str, State] = field(default_factory=dict)


def parts_of(content: Content) -> Iterator[bytes | memoryview]:
    """Yield a checkpoint piece by piece, without copying an array that lies in memory in one piece.

    Raises TypeError, before the first piece, for an array whose dtype its name does not tell, such as bfloat16.
    """
    named = [(group, name, array) for group, arrays in content.groups.items() for name, array in arrays.items()]
    listed = [[group, name, *_described(array, f"{group}/{name}")] for group, name, array in named]
    header = {"facts": content.facts, "groups": list(content.groups), "arrays": listed}
    checksum = 0
    for part in (FIRST_LINE, json.dumps(header).encode() + b"\n", *(_bytes_of(array) for _, _, array in named)):
        checksum = zlib.crc32(part, checksum)
        yield part
    yield checksum.to_bytes(CHECKSUM_BYTES, "little")


def from_bytes(data: bytes) -> Content:
    """Read a checkpoint; its arrays are read-only, and lie in memory as "F" where they did, else as "C".

    Raises DamagedError for anything that `parts_of` has not made.
    """
    if data.startswith(NAME) and not data.startswith(FIRST_LINE):
        raise DamagedError("it was written by another version of this program")
    checksum = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    if not data.startswith(FIRST_LINE) or zlib.crc32(memoryview(data)[:-CHECKSUM_BYTES]) != checksum:
        raise DamagedError(f"its {len(data)} bytes are not those that were written")
    offset = data.index(b"\n", len(FIRST_LINE)) + 1
    header = json.loads(data[len(FIRST_LINE) : offset])
    groups: dict[str, dict[str, AnyArray]] = {group: {} for group in header["groups"]}
    for group, name, *described in header["arrays"]:
        groups[group][name] = array = _array(data, offset, *described)
        offset += array.nbytes
    return Content(header["facts"], groups)


def _described(array: AnyArray, name: str) -> tuple[str, tuple[int, ...], Literal["C", "F"]]:
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(f"The array '{name}' is of the dtype {array.dtype}, which a checkpoint cannot hold.")
    return array.dtype.str, array.shape, _order(array)


def _order(array: AnyArray) -> Literal["C", "F"]:
    """Return how the array lies in memory, as some of NumPy's sums have other bits where it is another way.

    One that lies in neither order, such as every second row of another, or axes in a third order, comes back as "C".
    """
    return "F" if array.flags.fnc else "C"


def _bytes_of(array: AnyArray) -> bytes | memoryview:
    return array.ravel(_order(array)).view(np.uint8).data if array.nbytes else b""


def _array(data: bytes, offset: int, dtype: str, shape: list[int], order: Literal["C", "F"]) -> AnyArray:
    """Return an array of its own, so that one that is kept does not keep all others in memory."""
    array: AnyArray = np.empty(shape, dtype, order)
    if array.nbytes:
        array.ravel(order)[:] = np.frombuffer(data, dtype, math.prod(shape), offset)
    array.flags.writeable = False
    return array
