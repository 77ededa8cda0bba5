"""The header, byte by byte as its module says, and what another process may send in its place."""

import struct
import zlib

import numpy as np
import pytest

from strategies.compression.header import LENGTH, NOT_FINITE, SHORTENED, Header
from strategies.errors import LayoutError

HEADER = Header(1, 0x83, 4, 0, 2, 7, 1_663_370, 16_634, 35_000)
BODY = np.arange(5, dtype=np.uint8)


def test_the_bytes_are_those_of_the_table() -> None:
    start = b"FKU\x01" + bytes([1, 0x83, 4, 0, 2, 7]) + struct.pack("<III", 1_663_370, 16_634, 35_000)
    expected = start + struct.pack("<I", zlib.crc32(start + BODY.tobytes())) + BODY.tobytes()
    assert HEADER.seal(BODY).tobytes() == expected
    assert len(start) + 4 == LENGTH == 26


@pytest.mark.parametrize("body", [BODY, np.zeros(0, np.uint8)])
def test_opened_as_sealed(body: np.ndarray) -> None:
    header, opened = Header.open(HEADER.seal(body))
    assert header == HEADER
    assert opened.tobytes() == body.tobytes()


def test_flags() -> None:
    shortened, not_finite = (Header(0, 0, 0, flag, 0, 0, 1, 1, 0) for flag in (SHORTENED, NOT_FINITE))
    assert (shortened.shortened, shortened.not_finite) == (True, False)
    assert (not_finite.shortened, not_finite.not_finite) == (False, True)


def refused(payload: bytes) -> str:
    with pytest.raises(LayoutError) as caught:
        Header.open(np.frombuffer(payload, np.uint8))
    assert caught.value.reason == "malformed"
    return str(caught.value)


def test_a_newer_wire_version_is_named() -> None:
    for newer in (b"FKU\x02", b"FKU\x02" + bytes(100)):
        assert refused(newer) == (
            "The update has the wire version 2 of compressed updates, but 1 is spoken here: run the same version of "
            "fedkeras on server and clients."
        )


@pytest.mark.parametrize("payload", [b"", b"F", b"FKU", b"PK\x03\x04" + bytes(30), b"\x93NUMPY" + bytes(100)])
def test_other_formats_are_refused(payload: bytes) -> None:
    assert "begins with 'FKU'" in refused(payload)


def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    payload = HEADER.seal(BODY).tobytes()
    for length in range(len(payload)):
        refused(payload[:length])
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(bytes(flipped))
    assert "checksum" in refused(payload + b"\0")
