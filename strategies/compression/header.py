"""The first bytes of a compressed update: what it is, how much of it there is, and a checksum.

    3 bytes  "FKU"
    1        wire version
    1        which values are sent          (`Sparsifier.wire_id`)
    1        how values are written         (`Quantizer.wire_id`)
    1        bits of a value
    1        1 = shortened by zstandard, 2 = the update is not finite, and nothing follows
    1        how positions are written      (`Coder.wire_id`)
    1        bits of a gap that are written as they are
    4        values of the model
    4        values that are sent
    4        bits in unary of all gaps
    4        CRC-32 of all this and what follows
             the positions, then the values

Whole numbers, the lowest byte first. All lengths follow from the header, which makes it possible to check them first.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.compression.pieces import Bytes
from strategies.errors import LayoutError

MAGIC = b"FKU"
WIRE_VERSION = 1
FIELDS = struct.Struct("<6B3I")
START, CHECKSUM = struct.Struct("<3sB"), struct.Struct("<I")
LENGTH = START.size + FIELDS.size + CHECKSUM.size
MAX_SIZE = 2**32 - 1

SHORTENED, NOT_FINITE = 1, 2


@dataclass(frozen=True)
class Header:
    """What a payload says of itself: whole numbers as they stand in it."""

    sparsifier: int
    quantizer: int
    bits: int
    flags: int
    coder: int
    width: int
    size: int
    count: int
    unary: int

    @property
    def shortened(self) -> bool:
        """Whether what follows went through the lossless stage."""
        return self.flags == SHORTENED

    @property
    def not_finite(self) -> bool:
        """Whether the update is not finite, so that there is nothing to send."""
        return self.flags == NOT_FINITE

    def seal(self, body: Bytes) -> Bytes:
        """Return the payload: header, checksum, body."""
        start = START.pack(MAGIC, WIRE_VERSION) + FIELDS.pack(*vars(self).values())
        checksum = CHECKSUM.pack(zlib.crc32(body.data, zlib.crc32(start)))
        return np.concatenate([np.frombuffer(start + checksum, np.uint8), body])

    @classmethod
    def open(cls, payload: Bytes) -> tuple[Self, Bytes]:
        """Return header and body; raises LayoutError where it is no payload of this wire version, or damaged."""
        start = payload[: LENGTH - CHECKSUM.size].tobytes()
        if len(payload) < START.size or start[: len(MAGIC)] != MAGIC:
            raise LayoutError("malformed", "A compressed update begins with 'FKU', but what was sent does not.")
        if (version := start[len(MAGIC)]) != WIRE_VERSION:
            raise LayoutError(
                "malformed",
                f"The update has the wire version {version} of compressed updates, but {WIRE_VERSION} is spoken here: "
                "run the same version of fedkeras on server and clients.",
            )
        if len(payload) < LENGTH:
            raise LayoutError("malformed", f"A compressed update has {LENGTH} bytes or more, but {len(payload)} came.")
        body = payload[LENGTH:]
        (checksum,) = CHECKSUM.unpack(payload[len(start) : LENGTH].tobytes())
        if checksum != zlib.crc32(body.data, zlib.crc32(start)):
            raise LayoutError("malformed", "The update was damaged on its way: its checksum is wrong.")
        return cls(*FIELDS.unpack(start[START.size :])), body
